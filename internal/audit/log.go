package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Config is what a Log needs.
type Config struct {
	// File, when its Folder is not empty, is the log's own sink.
	File FileConfig
	// Syslog, when not nil, gets all lines too.
	Syslog *Syslog
	// Refuse says what holds while no sink can be written. False: service goes
	// on, as many events as Queue are kept, later ones are dropped and counted
	// in an event of kind Gap. True: Record and Commit fail, so that what can't
	// be recorded is not done.
	//
	// Who comes when the queue is full waits; without Refuse, for stuckAfter.
	Refuse bool
	// Queue is how many events may wait. Each takes some 500 octets.
	Queue int
	Log   *slog.Logger
}

const (
	// stuckAfter is for how long a disk that neither works nor fails holds up a
	// service that is to go on.
	stuckAfter = time.Second
	// retryEvery is how often a write is tried again when no sink took it.
	retryEvery = time.Second
	// syncEvery is how long events that nobody waits for may be in the page
	// cache only, where a crash of the machine, but not of mafd, loses them.
	syncEvery = time.Second
	// gather is the shortest time between two writes that nobody waits for.
	// A kill of mafd loses what came in it.
	gather = 10 * time.Millisecond
	// headEvery is how often a changed head goes to mafd's own log.
	headEvery = 10 * time.Minute
)

var (
	// ErrUnavailable: no sink can be written, and Config.Refuse is set.
	ErrUnavailable = errors.New("the audit log can't be written")
	errClosed      = errors.New("the audit log is closed")
)

// A Log records events. It is safe for concurrent use. A nil *Log records
// nothing.
type Log struct {
	config  Config
	file    *logFile // nil without one
	wake    chan struct{}
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when loop has ended

	mu      sync.Mutex
	next    *batch        // that fills; guarded by mu, as what follows
	room    chan struct{} // closed when next is empty again
	trouble chan struct{} // closed while no sink can be written
	spare   []Event       // for the batch after
	stuck   bool          // next has been full for stuckAfter
	stats   Stats
	closed  bool

	// The rest is loop's.
	at      position
	head    uint64 // the number that was noted last
	notices []Event
	buffer  []byte
	troubles
}

// troubles is what each sink's last write failed with.
type troubles struct{ file, syslog error }

// Stats is what a Log is doing, for metrics.
type Stats struct {
	Written uint64 // lines, in at least one sink
	Dropped uint64 // events
	Missed  uint64 // lines that a sink did not get, while another did
	Waiting int    // events
	// Unwritable says that no sink took the last write.
	Unwritable bool
	Seq        uint64 // the last line's number
	Head       string // and hash
}

// A batch is written together. It is loop's once taken.
type batch struct {
	events  []Event
	durable bool // somebody waits
	done    chan struct{}
	dropped Event // a Gap at its end, when its Count is not 0
}

func newBatch(events []Event) *batch { return &batch{events: events, done: make(chan struct{})} }

// Open goes on with the log that is there, or begins one, and records a Start,
// with what was found as its reason. When the file can't be opened and
// config.Refuse is not set, it is tried again and again, as after any failure.
func Open(config Config, start Event) (*Log, error) {
	l := newLog(config)
	if err := l.start(start); err != nil {
		return nil, err
	}
	return l, nil
}

func newLog(config Config) *Log {
	l := &Log{
		config: config, wake: make(chan struct{}, 1),
		closing: make(chan struct{}), stopped: make(chan struct{}),
		next: newBatch(nil), room: make(chan struct{}), trouble: make(chan struct{}),
		at: position{hash: zeroHash},
	}
	if config.File.Folder != "" {
		l.file = newLogFile(config.File)
	}
	return l
}

func (l *Log) start(e Event) error {
	e.Kind, e.Role, e.Outcome = Start, System, OK
	if l.file != nil {
		left, err := l.file.recover()
		switch {
		case err != nil && l.config.Refuse:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		case err != nil:
			left.note = "the log before could not be read: " + err.Error()
		case left.last.seq > 0:
			l.at = left.last
		}
		e.Reason = left.note
	}
	go l.loop()
	if err := l.Commit(context.Background(), e); err != nil {
		l.Close()
		return err
	}
	return nil
}

// Ready returns nil if events can be recorded, or ErrUnavailable. Ask before what
// can't be undone.
func (l *Log) Ready() error {
	if l == nil || !l.config.Refuse {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stats.Unwritable {
		return ErrUnavailable
	}
	return nil
}

// Record has an event written soon: within some milliseconds, and on stable
// storage within some seconds.
//
// Errors, which only occur with Config.Refuse: ErrUnavailable or ctx's.
func (l *Log) Record(ctx context.Context, e Event) error {
	if l == nil {
		return nil
	}
	_, _, err := l.put(ctx, e, false)
	return err
}

// Commit has an event written and returns when it is on stable storage. Without
// Config.Refuse it returns nil at once while no sink can be written.
//
// Errors: ErrUnavailable or ctx's, and then the event may still be written.
func (l *Log) Commit(ctx context.Context, e Event) error {
	if l == nil {
		return nil
	}
	b, trouble, err := l.put(ctx, e, true)
	if b == nil {
		return err
	}
	select {
	case <-b.done:
		return nil
	case <-trouble:
		if l.config.Refuse {
			return ErrUnavailable
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// put adds an event to the batch that fills, which it returns, or drops it.
func (l *Log) put(ctx context.Context, e Event, durable bool) (b *batch, trouble chan struct{}, err error) {
	for {
		l.mu.Lock()
		switch {
		case l.closed:
			l.mu.Unlock()
			return nil, nil, errClosed
		case l.stats.Unwritable && l.config.Refuse:
			l.mu.Unlock()
			return nil, nil, ErrUnavailable
		case len(l.next.events) < l.config.Queue:
			b, trouble = l.next, l.trouble
			e.Time = time.Now()
			b.events = append(b.events, e)
			first := len(b.events) == 1 || durable && !b.durable
			b.durable = b.durable || durable
			l.mu.Unlock()
			if first {
				l.signal()
			}
			return b, trouble, nil
		case !l.config.Refuse && (l.stuck || l.stats.Unwritable):
			l.drop()
			l.mu.Unlock()
			return nil, nil, nil
		}
		room, trouble := l.room, l.trouble
		l.mu.Unlock()
		if err := l.waitForRoom(ctx, room, trouble); err != nil {
			return nil, nil, err
		}
	}
}

// waitForRoom waits until put may have another look.
func (l *Log) waitForRoom(ctx context.Context, room, trouble chan struct{}) error {
	var stuck <-chan time.Time
	if !l.config.Refuse {
		t := time.NewTimer(stuckAfter)
		defer t.Stop()
		stuck = t.C
	}
	select {
	case <-room:
	case <-trouble:
	case <-ctx.Done():
		return ctx.Err()
	case <-stuck:
		l.mu.Lock()
		l.stuck = l.room == room // nothing has moved
		l.mu.Unlock()
	}
	return nil
}

// drop counts an event that the queue has no room for. mu is held.
func (l *Log) drop() {
	gap := &l.next.dropped
	if gap.Count == 0 {
		*gap = Event{Time: time.Now(), Kind: Gap, Role: System, Outcome: Failed,
			Reason: "no sink took the events for so long that these were dropped"}
	}
	gap.Count++
	l.stats.Dropped++
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default: // there is a token already
	}
}

// Stats returns how the log is doing.
func (l *Log) Stats() Stats {
	if l == nil {
		return Stats{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Waiting = len(l.next.events)
	return s
}

// Close records a Stop, writes what waits, if that can be done, and closes the
// sinks.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	err := l.Record(context.Background(), Event{Kind: Stop, Role: System, Outcome: OK})
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return errClosed
	}
	close(l.closing)
	<-l.stopped
	if l.file != nil {
		err = errors.Join(err, l.file.close())
	}
	l.config.Syslog.close()
	return err
}

// loop writes what comes until Close.
func (l *Log) loop() {
	defer close(l.stopped)
	defer l.noteHead()
	var earliest time.Time // of the next write that nobody waits for
	var unsynced bool      // since syncAt - syncEvery
	var syncAt time.Time
	headAt := time.Now() // the first is noted at once
	timer := time.NewTimer(0)
	for {
		now := time.Now()
		b, wait, closed := l.take(now, earliest)
		switch {
		case b != nil:
			if !unsynced && !b.durable {
				unsynced, syncAt = true, now.Add(syncEvery)
			}
			l.commit(b)
			if b.durable {
				unsynced = false
			}
			earliest = now.Add(gather)
			continue
		case closed:
			return
		case unsynced && !now.Before(syncAt):
			unsynced = false
			l.sync()
			continue
		case !now.Before(headAt):
			l.noteHead()
			headAt = now.Add(headEvery)
			continue
		case unsynced && (wait == 0 || syncAt.Sub(now) < wait):
			wait = syncAt.Sub(now)
		case wait == 0:
			wait = headAt.Sub(now)
		}
		timer.Reset(wait)
		select {
		case <-l.wake:
		case <-timer.C:
		case <-l.closing:
		}
	}
}

// take returns the batch that is to be written now, or how long one waits.
func (l *Log) take(now, earliest time.Time) (b *batch, wait time.Duration, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.next.events) == 0 {
		return nil, 0, l.closed
	}
	if wait = earliest.Sub(now); wait > 0 && !l.next.durable && !l.closed && len(l.next.events) < l.config.Queue/2 {
		return nil, wait, false
	}
	b, l.next = l.next, newBatch(l.spare)
	l.spare = nil
	l.stuck = false
	close(l.room)
	l.room = make(chan struct{})
	return b, 0, false
}

// commit writes a batch, however long that takes, unless the log is closed
// meanwhile.
func (l *Log) commit(b *batch) {
	for {
		err := l.attempt(b)
		l.setTrouble(err)
		if err == nil {
			l.reuse(b)
			return
		}
		select {
		case <-time.After(retryEvery):
			continue
		case <-l.closing:
		}
		if err := l.attempt(b); err != nil {
			l.config.Log.Error("audit: events are lost", "count", uint64(len(b.events))+b.dropped.Count, "error", err.Error())
		}
		return
	}
}

// reuse keeps the memory of a batch that is written.
func (l *Log) reuse(b *batch) {
	clear(b.events)
	l.mu.Lock()
	l.spare = b.events[:0]
	l.mu.Unlock()
	b.events = nil
}

// setTrouble notes whether the log can be written, and tells when that changed.
func (l *Log) setTrouble(err error) {
	l.mu.Lock()
	changed := l.stats.Unwritable != (err != nil)
	l.stats.Unwritable = err != nil
	switch {
	case changed && err != nil:
		close(l.trouble)
	case changed:
		l.trouble = make(chan struct{})
	}
	l.mu.Unlock()
	switch {
	case changed && err != nil:
		l.config.Log.Error("audit: no sink can be written", "service", l.service(), "error", err.Error())
	case changed:
		l.config.Log.Info("audit: the log can be written again")
	}
}

func (l *Log) service() string {
	if l.config.Refuse {
		return "refused"
	}
	return "goes on"
}

// attempt writes a batch to all sinks. It succeeds when one of them has it.
func (l *Log) attempt(b *batch) error {
	at, lines := l.at, l.buffer[:0]
	now := time.Now()
	var begun bool
	var fileErr error
	if l.file != nil {
		begun, fileErr = l.file.ready(at.seq+1, now)
	}
	if begun && fileErr == nil {
		lines = at.append(lines, &Event{Time: now, Kind: File, Role: System, Subject: FileName, Outcome: OK,
			Count: l.file.missed, Prev: at.hash.String()})
	}
	for i := range l.notices {
		lines = at.append(lines, &l.notices[i])
	}
	for i := range b.events {
		lines = at.append(lines, &b.events[i])
	}
	if b.dropped.Count > 0 {
		lines = at.append(lines, &b.dropped)
	}
	l.buffer = lines
	count := at.seq - l.at.seq

	var taken bool
	if l.file != nil {
		if fileErr == nil {
			fileErr = l.file.write(lines, b.durable)
		}
		taken = fileErr == nil
		if taken {
			l.file.missed = 0
			close(b.done) // syslog may be slow, and one is enough
		}
	}
	var syslogErr error
	if l.config.Syslog != nil {
		syslogErr = l.config.Syslog.write(lines, now)
		if syslogErr == nil && !taken {
			taken = true
			if l.file != nil {
				l.file.missed += count
			}
			close(b.done)
		}
	}
	if !taken {
		return errors.Join(fileErr, syslogErr)
	}
	l.taken(at, count, fileErr, syslogErr)
	return nil
}

// taken notes that lines up to a position are written, and which sink did not
// take them.
func (l *Log) taken(at position, count uint64, fileErr, syslogErr error) {
	l.at, l.notices = at, nil
	l.mu.Lock()
	l.stats.Written += count
	l.stats.Seq, l.stats.Head = at.seq, at.hash.String()
	if fileErr != nil || syslogErr != nil {
		l.stats.Missed += count
	}
	l.mu.Unlock()
	l.notice("file", &l.troubles.file, fileErr)
	l.notice("syslog", &l.troubles.syslog, syslogErr)
	const keep = 1 << 20
	if cap(l.buffer) > keep {
		l.buffer = nil
	}
}

// notice tells that a sink failed, while another has not, or works again: in
// mafd's log, and with the next event here.
func (l *Log) notice(sink string, before *error, err error) {
	changed := (*before == nil) != (err == nil)
	*before = err
	if !changed {
		return
	}
	e := Event{Time: time.Now(), Kind: SinkChange, Role: System, Subject: sink, Outcome: OK}
	if err != nil {
		e.Outcome, e.Reason = Failed, err.Error()
		l.config.Log.Error("audit: a sink can't be written", "sink", sink, "error", err.Error())
	} else {
		l.config.Log.Info("audit: a sink works again", "sink", sink)
	}
	l.notices = append(l.notices, e)
}

// sync sees to the disk what was written without.
func (l *Log) sync() {
	if l.file == nil {
		return
	}
	if err := l.file.sync(); err != nil {
		l.config.Log.Error("audit: what was written in the last second may not be on the disk", "error", err.Error())
	}
}

// noteHead puts the head into mafd's own log, which others keep. See the package
// comment for what that is good for.
func (l *Log) noteHead() {
	if l.at.seq != l.head {
		l.head = l.at.seq
		l.config.Log.Info("audit head", "seq", l.at.seq, "hash", l.at.hash.String())
	}
}
