package demo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// officeLog shows why mafd refused the handshakes that it refused.
func (p *performance) officeLog() error {
	f, err := os.Open(filepath.Join(p.dir, "mafd.log"))
	if err != nil {
		return err
	}
	defer f.Close()
	var shown []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line struct{ Msg, KmID, Reason string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "handshake failed" {
			shown = append(shown, fmt.Sprintf("handshake failed KmID=%s reason=%q", line.KmID, line.Reason))
		}
	}
	if len(shown) == 0 {
		return fmt.Errorf("mafd's log tells of no failed handshake")
	}
	p.say(strings.Join(shown, "\n"))
	return nil
}
