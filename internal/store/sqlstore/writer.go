package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/internal/combine"
	"github.com/onem2m-maf/maf/internal/store"
)

// writer makes all changes, in its combiner's goroutine.
type writer struct {
	*combine.Combiner[change]
	db     *DB
	conn   *sql.Conn
	begin  *sql.Stmt
	commit *sql.Stmt
	insert []inserter // largest first, down to one row
	told   func(changes int, took time.Duration, err error)
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

func newWriter(ctx context.Context, db *DB, o Options) (_ *writer, err error) {
	w := &writer{db: db, told: o.OnTransaction}
	defer func() {
		if err != nil {
			w.release()
		}
	}()
	if w.conn, err = db.write.Conn(ctx); err != nil {
		return nil, err
	}
	if w.begin, err = w.conn.PrepareContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	if w.commit, err = w.conn.PrepareContext(ctx, "COMMIT"); err != nil {
		return nil, err
	}
	if w.insert, err = prepareInserts(w.conn); err != nil {
		return nil, err
	}
	w.Combiner = combine.New(groupLimit, o.CommitInterval, w.transact)
	return w, nil
}

// close makes the changes that were asked for, and ends.
func (w *writer) close() {
	w.Combiner.Close()
	w.release()
}

// release gives the connection back. A statement left on it would keep SQLite
// from closing the files, and so from moving the log into the database.
func (w *writer) release() {
	if w.conn == nil {
		return
	}
	for _, stmt := range []*sql.Stmt{w.begin, w.commit} {
		if stmt != nil {
			stmt.Close()
		}
	}
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
	if err := w.Do(ctx, c); err != nil {
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
	begin := time.Now()
	added, err := w.apply(ctx, group)
	if w.told != nil {
		w.told(len(group), time.Since(begin), err)
	}
	if err != nil {
		// COMMIT may have failed with the transaction open or ended.
		w.conn.ExecContext(ctx, "ROLLBACK")
		err = fmt.Errorf("sqlstore: the transaction failed: %w", err)
	}
	w.db.index.settle(added, err == nil)
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

// apply returns the changes whose keys it inserted, or tried to.
func (w *writer) apply(ctx context.Context, group []*change) (added []*change, err error) {
	if _, err := w.begin.ExecContext(ctx); err != nil {
		return nil, err
	}
	if added, err = w.insertKeys(ctx, group); err != nil {
		return added, err
	}
	for _, c := range group {
		if c.do == nil {
			continue
		}
		if c.err = c.do(ctx, w.conn); c.err != nil && !changedNothing(c.err) {
			return added, c.err
		}
	}
	_, err = w.commit.ExecContext(ctx)
	return added, err
}
