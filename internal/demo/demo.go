// Package demo shows the flow of TS-0003 8.2.2.3 with the real programs, for
// people who have never heard of oneM2M.
//
// The parties are processes of their own, as in life: mafd is the MAF, "maf"
// commands are the device, and a hidden command of maf (Platform) is Entity B.
// All they keep is in a temporary folder that is removed at the end.
package demo

import (
	"context"
	"io"
	"os"
	"time"
)

// Options of Run. Maf, Out and Progress are required.
type Options struct {
	Maf      string    // path of the maf program
	Mafd     string    // path of the mafd program; "" to look for it
	Out      io.Writer // the story
	Progress io.Writer // what keeps it from beginning
	// Colour makes headings and commands stand out.
	Colour bool
	// JSON prints one JSON object per step instead of a story.
	JSON bool
}

// keyLife is how long a Kc of the demo is good for: long enough for a slow
// machine to come to its use, short enough to wait for its end.
const keyLife = 4 * time.Second

// Run plays the demo.
func Run(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp("", "maf-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mafd, err := findMafd(ctx, o, dir)
	if err != nil {
		return err
	}
	s := &stage{dir: dir, maf: o.Maf}
	defer s.close()
	if err := s.startMAF(ctx, mafd); err != nil {
		return err
	}
	return play(ctx, s, newNarrator(o))
}
