package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/combine"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// clients is the role of store.ClientStore.
type clients struct{ db *DB }

const clientColumns = "km_id, uid, version, id_b, ae_id, cse_id, lifetime, disabled, created, updated, sealed_km"

func (s clients) Add(ctx context.Context, c store.Client) error {
	return s.change(ctx, c.KmID, func(ctx context.Context, conn *sql.Conn) error {
		n, err := exec(ctx, conn, "INSERT INTO client ("+clientColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			c.KmID.String(), int64(c.UID), 1, c.IdB.String(), c.AEID.String(), c.CSEID.String(),
			seconds(c.Lifetime), c.Disabled, c.Created.Unix(), c.Updated.Unix(), c.SealedKm)
		if err == nil && n == 0 {
			err = store.ErrExists
		}
		return err
	})
}

func (s clients) Update(ctx context.Context, c store.Client) error {
	return s.change(ctx, c.KmID, func(ctx context.Context, conn *sql.Conn) error {
		if err := logRevocation(ctx, conn, `SELECT id_b, km_id, '' FROM client
			WHERE km_id = ? AND uid = ? AND version = ? AND NOT disabled AND (? OR id_b <> ? OR ae_id <> ? OR cse_id <> ?)`,
			c.KmID.String(), int64(c.UID), c.Version, c.Disabled, c.IdB.String(), c.AEID.String(), c.CSEID.String()); err != nil {
			return err
		}
		n, err := exec(ctx, conn, `UPDATE client SET version = version + 1, id_b = ?, ae_id = ?, cse_id = ?,
			lifetime = ?, disabled = ?, updated = ?, sealed_km = ? WHERE km_id = ? AND uid = ? AND version = ?`,
			c.IdB.String(), c.AEID.String(), c.CSEID.String(), seconds(c.Lifetime), c.Disabled, c.Updated.Unix(), c.SealedKm,
			c.KmID.String(), int64(c.UID), c.Version)
		if err == nil && n == 0 {
			err = whyNot(ctx, conn, c.KmID)
		}
		return err
	})
}

func (s clients) Remove(ctx context.Context, id onem2m.KmID, uid store.UID) error {
	return s.change(ctx, id, func(ctx context.Context, conn *sql.Conn) error {
		if err := logRevocation(ctx, conn, "SELECT id_b, km_id, '' FROM client WHERE km_id = ? AND uid = ?", id.String(), int64(uid)); err != nil {
			return err
		}
		n, err := exec(ctx, conn, "DELETE FROM client WHERE km_id = ? AND uid = ?", id.String(), int64(uid))
		if err == nil && n == 0 {
			err = whyNot(ctx, conn, id)
		}
		return err
	})
}

// change has the writer change a client and then forget what it had of it in
// memory, also when the transaction failed: who knows how far it came.
func (s clients) change(ctx context.Context, id onem2m.KmID, do func(context.Context, *sql.Conn) error) error {
	return s.db.writer.change(ctx, &change{do: do, after: func(bool) { s.db.cache.forget(id) }})
}

// changedNothing tells the contract's answers from failures.
func changedNothing(err error) bool {
	return errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict)
}

// whyNot says why a compare-and-swap met no row.
func whyNot(ctx context.Context, conn *sql.Conn, id onem2m.KmID) error {
	var found bool
	if err := conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM client WHERE km_id = ?)", id.String()).Scan(&found); err != nil {
		return err
	}
	if found {
		return store.ErrConflict
	}
	return store.ErrNotFound
}

func (s clients) List(ctx context.Context, after onem2m.KmID, limit int) ([]store.Client, error) {
	if limit <= 0 || limit > store.MaxPage {
		limit = store.MaxPage
	}
	rows, err := s.db.read.QueryContext(ctx,
		"SELECT "+clientColumns+" FROM client WHERE km_id > ? ORDER BY km_id LIMIT ?", after.String(), limit)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: listing clients: %w", err)
	}
	var page []store.Client
	var damaged []error
	err = eachClient(rows, func(_ string, c store.Client, err error) {
		if err != nil {
			damaged = append(damaged, err)
			return
		}
		page = append(page, c)
	})
	if err = errors.Join(append(damaged, err)...); err != nil {
		return page, fmt.Errorf("sqlstore: listing clients: %w", err)
	}
	return page, nil
}

func (s clients) Get(ctx context.Context, id onem2m.KmID) (store.Client, error) {
	if c, ok := s.db.cache.get(id); ok {
		return c, nil
	}
	l := &lookup{id: id}
	if err := s.db.reader.Do(ctx, l); err != nil {
		return store.Client{}, err
	}
	return l.client, l.err
}

// lookup is a Get that waits for its query.
type lookup struct {
	id     onem2m.KmID
	client store.Client
	err    error
}

const (
	lookupBatch    = 128 // clients that one query asks for
	lookupInterval = 2 * time.Millisecond
)

// A reader answers Get. It has a connection of its own, and combines what waits:
// when a million devices come back after a blackout, none is in the cache, and a
// query for each would cost twice what they cost together.
type reader struct {
	*combine.Combiner[lookup]
	db   *DB
	conn *sql.Conn
	one  *sql.Stmt // asks for one client
	many *sql.Stmt // asks for up to lookupBatch
}

func newReader(ctx context.Context, db *DB) (_ *reader, err error) {
	r := &reader{db: db}
	defer func() {
		if err != nil {
			r.release()
		}
	}()
	if r.conn, err = db.read.Conn(ctx); err != nil {
		return nil, err
	}
	query := "SELECT " + clientColumns + " FROM client WHERE km_id "
	if r.one, err = r.conn.PrepareContext(ctx, query+"= ?"); err != nil {
		return nil, err
	}
	if r.many, err = r.conn.PrepareContext(ctx, query+"IN (?"+strings.Repeat(", ?", lookupBatch-1)+")"); err != nil {
		return nil, err
	}
	r.Combiner = combine.New(groupLimit, lookupInterval, r.lookUpAll)
	return r, nil
}

// close answers what was asked, and ends.
func (r *reader) close() {
	r.Combiner.Close()
	r.release()
}

// release gives the connection back. Statements on a sql.Conn are not closed
// with it.
func (r *reader) release() {
	for _, stmt := range []*sql.Stmt{r.one, r.many} {
		if stmt != nil {
			stmt.Close()
		}
	}
	if r.conn != nil {
		r.conn.Close()
	}
}

func (r *reader) lookUpAll(group []*lookup) {
	for len(group) > 0 {
		n := min(lookupBatch, len(group))
		if n == 1 {
			r.lookUp(r.one, 1, group[:1])
		} else {
			r.lookUp(r.many, lookupBatch, group[:n])
		}
		group = group[n:]
	}
}

// lookUp answers the lookups with one query, whose statement takes so many
// parameters.
func (r *reader) lookUp(stmt *sql.Stmt, parameters int, batch []*lookup) {
	args := make([]any, parameters) // those that are left over stay NULL, which nothing equals
	byID := make(map[string][]*lookup, len(batch))
	for i, l := range batch {
		id := l.id.String()
		args[i], byID[id] = id, append(byID[id], l)
		l.err = store.ErrNotFound
	}
	ticket := r.db.cache.ticket()
	rows, err := stmt.QueryContext(context.Background(), args...)
	if err == nil {
		err = eachClient(rows, func(id string, c store.Client, err error) {
			if err == nil {
				r.db.cache.put(ticket, c)
			}
			for _, l := range byID[id] {
				l.client, l.err = c, err
			}
		})
	}
	if err != nil {
		for _, l := range batch {
			l.err = fmt.Errorf("sqlstore: reading clients: %w", err)
		}
	}
}

// eachClient calls f for every row of clientColumns, and closes rows. The error
// that f gets says that this one row makes no sense, which must not hurt others.
func eachClient(rows *sql.Rows, f func(id string, c store.Client, err error)) error {
	defer rows.Close()
	for rows.Next() {
		var (
			c                          store.Client
			id, idB, aeID, cseID       string
			lifetime, created, updated int64
		)
		if err := rows.Scan(&id, &c.UID, &c.Version, &idB, &aeID, &cseID,
			&lifetime, &c.Disabled, &created, &updated, &c.SealedKm); err != nil {
			return err
		}
		err := errors.Join(
			c.KmID.UnmarshalText([]byte(id)),
			c.IdB.UnmarshalText([]byte(idB)),
			c.AEID.UnmarshalText([]byte(aeID)),
			c.CSEID.UnmarshalText([]byte(cseID)))
		if err != nil {
			err = fmt.Errorf("sqlstore: the row of client %q is damaged: %w", id, err)
		}
		c.Lifetime = time.Duration(lifetime) * time.Second
		c.Created, c.Updated = time.Unix(created, 0).UTC(), time.Unix(updated, 0).UTC()
		f(id, c, err)
	}
	return rows.Err()
}

func exec(ctx context.Context, conn *sql.Conn, query string, args ...any) (int64, error) {
	result, err := conn.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
