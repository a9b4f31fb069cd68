package mafd

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/onem2m-maf/maf/internal/admission"
)

// A door is where the clients of one transport come in. TLS and DTLS have their
// own, so that a flood over one leaves the other alone.
type door struct {
	gate     *admission.Gate
	sessions chan struct{} // a token for each session after its handshake
	pressure limiter       // tells of those who were turned away
}

// newDoor returns a door for at most places handshakes under way, and as many
// sessions after theirs.
func newDoor(transport string, c HandshakeConfig, places int, log *slog.Logger) *door {
	d := &door{
		gate: admission.NewGate(admission.Config{
			Total:     places,
			PerSource: c.MaxPerSource,
			Failures:  c.failures(),
		}),
		sessions: make(chan struct{}, places),
	}
	// No burst: nobody who was turned away is worth a line, only their number.
	d.pressure.missed = func(n int) {
		s := d.gate.Stats()
		log.Warn("handshakes turned away", "count", n, "transport", transport,
			"under_way", s.UnderWay, "peak", s.Peak, "admitted", s.Admitted, "failed", s.Failed, "shed", s.Shed,
			"refused_failing", s.RefusedFailing, "refused_crowded", s.RefusedCrowded)
	}
	return d
}

// failures is how many handshakes of one source may fail.
func (c *HandshakeConfig) failures() admission.Rate {
	if c.FailureBurst == 0 {
		return admission.Rate{} // no limit
	}
	return admission.Rate{Burst: c.FailureBurst, PerSecond: float64(c.FailuresPerSecond)}
}

// Connections, as far as the limit of open files allows. Without this, those
// who hold TLS handshakes open would use up all files before the gate thinks
// that the house is full, and so keep everyone out, the key API's users
// included.
type connections struct {
	tls    int // handshakes under way, and as many sessions
	keyAPI int
}

const (
	// otherFiles is for the store, the admin API, the log, the listeners.
	otherFiles = 128
	// fewestFiles is the least with which mafd starts.
	fewestFiles = 256
)

// fit divides the files that may be open.
func fit(files uint64, maxConcurrent int) (connections, error) {
	if files < fewestFiles {
		return connections{}, fmt.Errorf("the limit of open files is %d, at least %d are needed; raise it (ulimit -n, LimitNOFILE=)", files, fewestFiles)
	}
	free := min(files, 1<<30) - otherFiles
	keyAPI := min(maxKeyAPIConnections, free/4)
	// There may be an eighth more handshakes than places for a moment: for n
	// places n*9/8 files, and n for the sessions.
	tls := min(uint64(maxConcurrent), (free-keyAPI)*8/17)
	return connections{tls: int(tls), keyAPI: int(keyAPI)}, nil
}

// openFiles returns how many files this process may have open. The Go runtime
// has raised that to what the system allows.
func openFiles() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	return uint64(limit.Cur), nil
}
