package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
)

// writer makes all changes, in its combiner's goroutine.
type writer struct {
	*combiner[change]
	db     *DB
	conn   *sql.Conn
	insert []inserter // largest first, down to one row
}

// change is one call's part of a transaction. It either has a key to insert or
// something else to do.
type change struct {
	key *store.Key
	seq int64 // of the key, once inserted

	// do makes the change. An error that is one of package store's means that it
	// changed nothing; any other fails the whole transaction.
	do func(context.Context, *sql.Conn) error
	// after runs when the transaction has ended, before anybody is told.
	// committed is false when it failed.
	after func(committed bool)

	err error
}

func newWriter(ctx context.Context, db *DB, interval time.Duration) (*writer, error) {
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{db: db, conn: conn}
	if w.insert, err = prepareInserts(conn); err != nil {
		w.release()
		return nil, err
	}
	w.combiner = newCombiner(groupLimit, interval, w.transact)
	return w, nil
}

// close makes the changes that were asked for, and ends.
func (w *writer) close() {
	w.combiner.close()
	w.release()
}

// release gives the connection back. A statement left on it would keep SQLite
// from closing the files, and so from moving the log into the database.
func (w *writer) release() {
	w.conn.Raw(func(any) error {
		for _, i := range w.insert {
			i.stmt.Close()
		}
		return nil
	})
	w.conn.Close()
}

// change makes one change and returns its outcome.
func (w *writer) change(ctx context.Context, c *change) error {
	if err := w.do(ctx, c); err != nil {
		return err
	}
	return c.err
}

// transact makes all changes of the group in one transaction, and returns when
// it is on stable storage or has failed.
func (w *writer) transact(group []*change) {
	// Not the callers' contexts: one that gives up must not take the others'
	// changes with it.
	ctx := context.Background()
	err := w.apply(ctx, group)
	if err != nil {
		// COMMIT may have failed with the transaction open or ended.
		w.conn.ExecContext(ctx, "ROLLBACK")
		err = fmt.Errorf("sqlstore: the transaction failed: %w", err)
	}
	for _, c := range group {
		if err != nil {
			// Also those that already have an answer: it was given in view of
			// changes that are gone.
			c.err = err
		}
		if c.after != nil {
			c.after(err == nil)
		}
	}
}

func (w *writer) apply(ctx context.Context, group []*change) error {
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	added, err := w.insertKeys(ctx, group)
	if err != nil {
		return err
	}
	for _, c := range group {
		if c.do == nil {
			continue
		}
		if c.err = c.do(ctx, w.conn); c.err != nil && !changedNothing(c.err) {
			return c.err
		}
	}
	if _, err := w.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return err
	}
	w.db.index.add(added)
	return nil
}
