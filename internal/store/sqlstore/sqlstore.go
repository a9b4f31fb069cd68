// Package sqlstore is the embedded store: one SQLite file in write-ahead-log
// mode, for one process at a time.
//
// # What is durable when
//
// SQLite runs with synchronous=FULL: COMMIT returns after the log, with the
// transaction in it, was synced to the disk. The log moves into the database
// (the "checkpoint") in the order that survives a crash at any point: log synced,
// pages copied, database synced, and only then the log is overwritten. After a
// crash, opening the store replays the log up to the last whole transaction,
// which is the normal path of every open. As always, this is as true as the
// disk's word that it has written what it was told to.
//
// A commit that failed was rolled back for this process. If the machine stops
// before the next commit, it may come back with the restart, whole: the failure
// may have come after the log was written.
//
// # One writer
//
// All changes go through one goroutine, which takes what waits (up to 1024
// changes), does it in one transaction, and wakes everybody after the one fsync.
// When the transaction fails, all of them get the error. Under load it leaves
// Options.CommitInterval between the begins of two commits, because a sync costs
// CPU time too: 0.3 to 0.6 ms of it on a virtual disk, which shared by 10
// handshakes would be as much as the handshakes themselves, and shared by 200 is
// little.
//
// # Finding keys
//
// Kcs are looked up by RelativeKcId, which is random, and random keys are what
// a B-tree likes least: every row would dirty a page of its own. So rows are
// keyed in order of arrival and an index in memory, rebuilt while the store is
// opened, leads from RelativeKcId to the row. It takes some 47 octets for each
// key that has not been purged yet.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"github.com/onem2m-maf/maf/internal/combine"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/wholefile"
)

var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("sqlstore: the store is in use by another process")
	// ErrNewer: the store was written by a newer version of this program.
	ErrNewer = errors.New("sqlstore: the store is from a newer version of this program")
	// ErrForeign: the file is a database, but not a MAF's.
	ErrForeign = errors.New("sqlstore: the database is not a MAF's store")
	// ErrPermissions: others may read or write the file.
	ErrPermissions = errors.New("sqlstore: the store must be accessible to its owner only (chmod 600)")
	// ErrClosed: the store was closed.
	ErrClosed = combine.ErrClosed
)

// Defaults of Options.
const (
	DefaultClientCache    = 1 << 16
	DefaultCommitInterval = 20 * time.Millisecond
)

// Options may be left zero.
type Options struct {
	// ClientCache is how many clients are kept in memory, some 500 octets each;
	// 0 means DefaultClientCache. A handshake of a client that is not among them
	// costs a query more.
	ClientCache int
	// CommitInterval is the shortest time between the begins of two commits when
	// changes come faster than that, and so the longest that it delays any of
	// them; 0 means DefaultCommitInterval, negative means none. A change that
	// finds the store idle is committed at once.
	CommitInterval time.Duration
	// OnTransaction, when not nil, is told of each transaction: how many changes
	// it had, how long it took, and how it ended. It must not block.
	OnTransaction func(changes int, took time.Duration, err error)
}

const (
	groupLimit = 1024 // changes in one transaction, and lookups in one go
	readers    = 4    // connections for queries
)

// DB is an open store. Its methods, and those of its roles, may be called from
// any goroutine.
type DB struct {
	lock   *os.File
	write  *sql.DB // one connection, which is the writer's
	read   *sql.DB
	writer *writer
	reader *reader
	index  *keyIndex
	cache  *clientCache
}

// Open opens the store at path and creates it when it isn't there; the folder
// must exist. It reads through the keys once, to index them: about two seconds
// for a million.
func Open(ctx context.Context, path string, o Options) (_ *DB, err error) {
	if o.ClientCache == 0 {
		o.ClientCache = DefaultClientCache
	}
	if o.CommitInterval == 0 {
		o.CommitInterval = DefaultCommitInterval
	}
	db := &DB{cache: newClientCache(o.ClientCache), index: newKeyIndex()}
	defer func() {
		if err != nil {
			db.Close()
			err = fmt.Errorf("opening %s: %w", path, err)
		}
	}()
	if db.lock, err = lock(path + ".lock"); err != nil {
		return nil, err
	}
	if err := prepareFile(path); err != nil {
		return nil, err
	}
	if err := db.connect(ctx, path); err != nil {
		return nil, err
	}
	if err := db.index.load(ctx, db.read); err != nil {
		return nil, err
	}
	if db.writer, err = newWriter(ctx, db, o); err != nil {
		return nil, err
	}
	if db.reader, err = newReader(ctx, db); err != nil {
		return nil, err
	}
	return db, nil
}

// Clients returns the role that keeps clients.
func (db *DB) Clients() store.ClientStore { return clients{db} }

// Keys returns the role that keeps Kcs.
func (db *DB) Keys() store.KeyStore { return keys{db} }

// Close does what was begun, and closes the files. Calls after it return
// ErrClosed or another error.
func (db *DB) Close() error {
	if db.writer != nil {
		db.writer.close()
	}
	if db.reader != nil {
		db.reader.close()
	}
	var errs []error
	for _, pool := range []*sql.DB{db.read, db.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if db.lock != nil {
		errs = append(errs, db.lock.Close()) // last, it lets the next process in
	}
	return errors.Join(errs...)
}

// prepareFile makes sure that there is a file at path which only its owner may
// read. SQLite gives the same permissions to the files that it puts beside it.
func prepareFile(path string) error {
	// To SQLite, an empty file is an empty database.
	if err := wholefile.Create(path, nil, 0o600); !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w: it has mode %#o", ErrPermissions, uint32(mode))
	}
	return nil
}

// connect opens the two pools and brings the schema up to date.
func (db *DB) connect(ctx context.Context, path string) error {
	// fdatasync leaves out the file's times only, and takes half the CPU time of
	// the driver's default, fsync. Every Linux distribution's SQLite uses it. The
	// switch is the process's; where there is none, the default is as good.
	sqlite.Fdatasync(true)

	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	name := "file:" + (&url.URL{Path: abs}).EscapedPath()
	if db.write, err = sql.Open("sqlite", name+"?"+pragmas(
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"fullfsync(1)", // macOS: past the disk's own cache
		"checkpoint_fullfsync(1)",
		"journal_size_limit(67108864)", // a log that a long read let grow shrinks again
	)); err != nil {
		return err
	}
	db.write.SetMaxOpenConns(1)
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := migrate(ctx, conn); err != nil {
		return err
	}
	if err := checkMode(ctx, conn); err != nil {
		return err
	}
	if db.read, err = sql.Open("sqlite", name+"?"+pragmas("query_only(1)", "cache_size(-16000)")); err != nil {
		return err
	}
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	return nil
}

// checkMode makes sure that SQLite is in the mode that durability here is built
// on: asking for one does not mean getting it.
func checkMode(ctx context.Context, conn *sql.Conn) error {
	var journal string
	var synchronous int
	err := conn.QueryRowContext(ctx, `SELECT
		(SELECT journal_mode FROM pragma_journal_mode),
		(SELECT synchronous FROM pragma_synchronous)`).Scan(&journal, &synchronous)
	if err == nil && (journal != "wal" || synchronous != 2) {
		err = fmt.Errorf("SQLite runs with journal_mode=%s and synchronous=%d instead of wal and 2", journal, synchronous)
	}
	return err
}

// pragmas returns those of the connection and the ones that all have in common.
func pragmas(own ...string) string {
	v := url.Values{"_pragma": append(own,
		"busy_timeout(5000)",
		"trusted_schema(0)",
		"cell_size_check(1)",
	)}
	return v.Encode()
}
