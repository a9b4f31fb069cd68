package pgstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// configure says how each connection is made.
func (db *DB) configure(o Options, steps []migration) (*pgxpool.Config, error) {
	address, err := complete(o.URL)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("pgstore: %w", err) // it leaves out passwords
	}
	c := config.ConnConfig
	c.RuntimeParams["application_name"] = "mafd"
	c.RuntimeParams["synchronous_commit"] = "on"
	c.RuntimeParams["default_transaction_isolation"] = "read committed"
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	// Of several hosts, the one that takes changes: a standby is behind.
	c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) (err error) {
		if err := db.gate.check(); err != nil {
			return err
		}
		if o.PasswordFile != "" {
			c.Password, err = readPassword(o.PasswordFile)
		}
		return err
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		err := checkServer(ctx, conn, len(steps))
		if err != nil {
			db.gate.shut(err)
		}
		return err
	}
	return config, nil
}

// CheckURL says what is wrong with a URL; ErrPassword: it holds one.
func CheckURL(address string) error {
	_, err := complete(address)
	return err
}

// complete returns the URL with the defaults that differ from libpq's.
func complete(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		// The parser's error would quote the URL, and with it what should not be in it.
		return "", errors.New("pgstore: the database's URL is not of the form postgres://user@host/database")
	}
	q := u.Query()
	if _, ok := u.User.Password(); ok || q.Has("password") {
		return "", fmt.Errorf("%w: it stands in the database's URL; put it into a file of its own", ErrPassword)
	}
	host := u.Hostname()
	if q.Has("host") {
		host = q.Get("host")
	}
	if !q.Has("sslmode") && os.Getenv("PGSSLMODE") == "" && !local(host) {
		q.Set("sslmode", "verify-full")
	}
	if !q.Has("pool_max_conns") {
		q.Set("pool_max_conns", strconv.Itoa(connections))
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// local reports whether nobody can be in between: on this machine, or on a Unix
// socket.
func local(host string) bool {
	if host == "" {
		host = os.Getenv("PGHOST")
	}
	ip := net.ParseIP(host)
	return host == "" || host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || ip != nil && ip.IsLoopback()
}

// readPassword reads the first line of a file that nobody else may read.
func readPassword(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("%w: %s is open to other users (mode %04o); chmod 0600 it", ErrPassword, path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return strings.TrimSuffix(string(line), "\r"), nil
}

// checkServer makes sure of what durability here is built on, and that the schema
// has not become too new: asking for a setting does not mean getting it, and what
// is at the other end may be another server each time.
func checkServer(ctx context.Context, conn *pgx.Conn, known int) error {
	var fsync, synchronous string
	var version, oldest int
	err := conn.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit'), version, oldest
		FROM maf.schema_version`).Scan(&fsync, &synchronous, &version, &oldest)
	if err != nil {
		return err
	}
	if fsync != "on" || synchronous != "on" {
		return fmt.Errorf("%w: fsync=%s and synchronous_commit=%s; both must be on", ErrUnsafe, fsync, synchronous)
	}
	return checkVersion(version, oldest, known)
}

// A gate keeps thousands of waiting handshakes from knocking at a server that is
// down or just starting: between two attempts to connect there is a pause, in
// which everybody gets the error of the last one. Connections that exist don't
// care.
type gate struct {
	good chan struct{} // holds at most one token, when a connection was made again

	mu    sync.Mutex
	err   error         // of the last attempt; guarded by mu
	until time.Time     // end of the pause; guarded by mu
	pause time.Duration // how long it is; guarded by mu
}

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// check returns an error during a pause.
func (g *gate) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Now().Before(g.until) {
		return &pausedError{g.err}
	}
	return nil
}

// note takes the outcome of an attempt to get a connection.
func (g *gate) note(err error) {
	var failed *pgconn.ConnectError
	var paused *pausedError
	switch {
	case errors.As(err, &paused): // that was no attempt
	case err == nil:
		g.mu.Lock()
		again := g.pause > 0
		g.pause, g.until = 0, time.Time{}
		g.mu.Unlock()
		if again {
			select {
			case g.good <- struct{}{}:
			default: // there is a token already
			}
		}
	case errors.As(err, &failed):
		g.shut(err)
	}
}

// shut begins a pause, longer than the last one.
func (g *gate) shut(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); !now.Before(g.until) {
		g.pause = min(max(2*g.pause, firstPause), lastPause)
		g.err, g.until = err, now.Add(g.pause)
	}
}

// A pausedError is the gate's: the error of the last attempt, with no other made.
type pausedError struct{ last error }

func (e *pausedError) Error() string {
	return "the last attempt failed a moment ago: " + e.last.Error()
}
func (e *pausedError) Unwrap() error { return e.last }
