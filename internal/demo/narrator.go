package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// A narrator tells the story: as text, or as one JSON object per step.
type narrator struct {
	out    io.Writer
	colour bool
	json   bool
	n      int  // steps begun
	step   step // the current one, for JSON
}

// A step is a chapter of the story.
type step struct {
	Step     int       `json:"step"`
	Title    string    `json:"title"`
	Text     []string  `json:"text,omitempty"`
	Commands []outcome `json:"commands,omitempty"`
	Events   []Event   `json:"events,omitempty"` // what Entity B saw
}

func newNarrator(o Options) *narrator {
	return &narrator{out: o.Out, colour: o.Colour, json: o.JSON}
}

// Colours, as terminals understand them.
const (
	bold  = "1"
	faint = "2"
	green = "32"
	red   = "31"
	cyan  = "36"
)

func (n *narrator) paint(colour, text string) string {
	if !n.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// chapter begins a step.
func (n *narrator) chapter(title string) {
	n.flush()
	n.n++
	n.step = step{Step: n.n, Title: title}
	if !n.json {
		fmt.Fprintf(n.out, "\n%s\n", n.paint(bold, fmt.Sprintf("%d. %s", n.n, title)))
	}
}

// say tells something, in lines as they are to be shown.
func (n *narrator) say(text string) {
	text = strings.TrimSpace(text)
	n.step.Text = append(n.step.Text, text)
	if !n.json {
		fmt.Fprintf(n.out, "\n%s\n", indent(text, "   "))
	}
}

// command shows a command that was run and what came of it.
func (n *narrator) command(o outcome) {
	n.step.Commands = append(n.step.Commands, o)
	if n.json {
		return
	}
	line := "$ " + strings.Join(o.Command, " ")
	if o.Stdin != "" {
		line = fmt.Sprintf("$ echo %q | %s", strings.TrimSpace(o.Stdin), strings.Join(o.Command, " "))
	}
	fmt.Fprintf(n.out, "\n%s\n", n.paint(cyan, indent(wrap(line), "   ")))
	colour := green
	if o.Exit != 0 {
		colour = red
	}
	for _, text := range []string{o.Stderr, o.Stdout} {
		if text != "" {
			fmt.Fprintf(n.out, "%s\n", n.paint(colour, indent(strings.TrimRight(text, "\n"), "     ")))
		}
	}
}

// event shows what Entity B saw.
func (n *narrator) event(who string, e Event) {
	n.step.Events = append(n.step.Events, e)
	if n.json {
		return
	}
	if e.Refused != "" {
		fmt.Fprintf(n.out, "   %s %s\n", who, n.paint(red, "turned it away: "+e.Refused))
		return
	}
	fmt.Fprintf(n.out, "   %s %s\n", who, n.paint(green, fmt.Sprintf("let in %s, until %s at most",
		e.Peer, e.Expires.UTC().Format("15:04:05 UTC"))))
}

// flush ends the current step.
func (n *narrator) flush() {
	if n.json && n.step.Step > 0 {
		e := json.NewEncoder(n.out)
		e.SetEscapeHTML(false)
		e.Encode(n.step)
	}
	n.step = step{}
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(text, "\n", "\n"+by)
}

// wrap breaks a command line as a shell allows.
func wrap(line string) string {
	const width = 90
	var b strings.Builder
	column := 0
	for i, word := range strings.Split(line, " ") {
		// A flag stays with its value.
		if i > 0 && column+len(word) > width || column > width/2 && strings.HasPrefix(word, "--") {
			b.WriteString(" \\\n    ")
			column = 4
		} else if i > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
