// Package pgstore keeps the MAF's store in PostgreSQL, 14 or later, where any
// number of MAF nodes share it.
//
// # What is durable when
//
// Every change is one transaction with synchronous_commit=on: PostgreSQL answers
// after its log was synced to the disk, and to the synchronous standbys, if it has
// any. A server that runs with fsync=off is refused. When the connection breaks
// while a commit is under way, nobody knows whether it was made; the caller gets
// an error, as the contract says.
//
// # What each node knows
//
// Nothing: there is no cache. What one node changed, the next read of any other
// sees, which a cache that is told of changes could not promise; the news may be
// late. Reads that wait at the same time share a query, and inserts a statement,
// which is where most of the time would go.
//
// Nodes are told of revocations by NOTIFY, in the transaction that logs them. A
// notification can be lost with its connection, so it only makes things faster:
// whoever follows the log also looks from time to time.
//
// # Upgrades
//
// A newer program brings the schema up to date when it starts, while nodes of the
// version before go on; see migrations.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/onem2m-maf/maf/internal/combine"
	"github.com/onem2m-maf/maf/internal/store"
)

var (
	// ErrNewer: the schema is from a newer version of this program, and too new
	// for this one.
	ErrNewer = errors.New("pgstore: the database is from a newer version of this program")
	// ErrForeign: the schema named maf is not a MAF's.
	ErrForeign = errors.New("pgstore: the schema maf in this database is not a MAF's store")
	// ErrUnsafe: PostgreSQL does not put on stable storage what it confirms.
	ErrUnsafe = errors.New("pgstore: PostgreSQL runs with settings that lose confirmed changes")
	// ErrPassword: the URL holds a password, or others may read the password file.
	ErrPassword = errors.New("pgstore: the password does not belong there")
	// ErrClosed: the store was closed.
	ErrClosed = combine.ErrClosed
)

// DefaultCommitInterval is the default of Options.CommitInterval.
const DefaultCommitInterval = 10 * time.Millisecond

// Options say where the database is. All but URL may be left zero.
type Options struct {
	// URL is that of libpq, such as postgres://mafd@db.example.com/maf, without a
	// password. Unless it says otherwise, a server on another machine has to have
	// a certificate for its name (sslmode=verify-full): somebody in between could
	// bring back a client that was disabled.
	URL string
	// PasswordFile holds the password; it is read for each connection. Without it
	// libpq's own file (PGPASSFILE, ~/.pgpass) counts.
	PasswordFile string
	// CommitInterval is the shortest time between the begins of two commits of keys
	// when they come faster than that; 0 means DefaultCommitInterval, negative
	// means none. A key that finds the store idle is committed at once.
	CommitInterval time.Duration
	// OnTransaction, when not nil, is told of each transaction that changes
	// something: how many changes it had, how long it took, and how it ended. It
	// must not block.
	OnTransaction func(changes int, took time.Duration, err error)
	// Log is told when the connection is lost and when it is back.
	Log *slog.Logger
}

const (
	groupLimit  = 1024             // rows in one statement
	connections = 8                // unless the URL has pool_max_conns
	patience    = 10 * time.Second // with one statement that callers share
)

// DB is an open store. Its methods, and those of its roles, may be called from
// any goroutine.
type DB struct {
	pool    *pgxpool.Pool
	gate    gate
	keys    *adder[store.Key, [16]byte]
	clients *adder[store.Client, string]
	reader  *combine.Combiner[lookup]
	told    func(changes int, took time.Duration, err error)
	revoked chan struct{} // holds at most one token

	stop      context.CancelFunc // ends the listener
	listening sync.WaitGroup
}

// Open connects to the database and brings its schema up to date, or makes it.
// The role that it connects as needs no more than to be the database's owner, and
// less when the schema is up to date already.
func Open(ctx context.Context, o Options) (*DB, error) { return open(ctx, o, migrations) }

// open takes the schema's steps, so that a test can be a program of another
// version.
func open(ctx context.Context, o Options, steps []migration) (*DB, error) {
	if o.CommitInterval == 0 {
		o.CommitInterval = DefaultCommitInterval
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnTransaction == nil {
		o.OnTransaction = func(int, time.Duration, error) {}
	}
	db := &DB{told: o.OnTransaction, revoked: make(chan struct{}, 1), gate: gate{good: make(chan struct{}, 1)}}
	config, err := db.configure(o, steps)
	if err != nil {
		return nil, err
	}
	if err := prepareSchema(ctx, config.ConnConfig, config.BeforeConnect, steps); err != nil {
		return nil, err
	}
	if db.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	// The first connection shows whether the server may be relied on.
	if err := db.with(ctx, func(*pgx.Conn) error { return nil }); err != nil {
		db.pool.Close()
		return nil, err
	}
	db.keys = newKeyAdder(db, o.CommitInterval)
	db.clients = newClientAdder(db)
	db.reader = combine.New(groupLimit, 0, db.lookUpAll)
	listenContext, stop := context.WithCancel(context.Background())
	db.stop = stop
	l := &listener{db: db, config: config, log: o.Log}
	db.listening.Go(func() { l.run(listenContext) })
	return db, nil
}

// Clients returns the role that keeps clients.
func (db *DB) Clients() store.ClientStore { return clients{db} }

// Keys returns the role that keeps Kcs.
func (db *DB) Keys() store.KeyStore { return keys{db} }

// Revoked has a token when there may be new revocations, by whatever node.
func (db *DB) Revoked() <-chan struct{} { return db.revoked }

// Close does what was begun, and closes the connections. Calls after it return
// ErrClosed or another error.
func (db *DB) Close() error {
	db.stop()
	db.keys.Close()
	db.clients.Close()
	db.reader.Close()
	db.listening.Wait()
	db.pool.Close()
	return nil
}

// with lends a connection.
func (db *DB) with(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := db.pool.Acquire(ctx)
	db.gate.note(err)
	if err != nil {
		return fmt.Errorf("pgstore: no connection to PostgreSQL: %w", err)
	}
	defer conn.Release()
	return do(conn.Conn())
}

// transact does all of a transaction or nothing.
func (db *DB) transact(ctx context.Context, do func(pgx.Tx) error) error {
	begin := time.Now()
	err := db.with(ctx, func(conn *pgx.Conn) error { return pgx.BeginFunc(ctx, conn, do) })
	if changedNothing(err) {
		return err
	}
	db.told(1, time.Since(begin), err)
	return err
}

// changedNothing tells the contract's answers from failures.
func changedNothing(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict)
}
