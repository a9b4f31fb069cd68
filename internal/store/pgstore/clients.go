package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// clients is the role of store.ClientStore.
type clients struct{ db *DB }

const clientColumns = "km_id, uid, version, id_b, ae_id, cse_id, lifetime, disabled, created, updated, sealed_km"

func newClientAdder(db *DB) *adder[store.Client, string] {
	a := &adder[store.Client, string]{
		db:     db,
		column: "km_id",
		id:     func(c *store.Client) string { return c.KmID.String() },
		insert: "INSERT INTO maf.client (" + clientColumns + `) SELECT km_id, uid, 1, id_b, ae_id, cse_id, lifetime, disabled, created, updated, sealed_km
			FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[], $8::bigint[], $9::bigint[], $10::bytea[])
			AS t (km_id, uid, id_b, ae_id, cse_id, lifetime, disabled, created, updated, sealed_km)`,
		values: clientArrays,
	}
	return a.start(0)
}

func clientArrays(rows []*addition[store.Client]) []any {
	n := len(rows)
	kmID, idB, aeID, cseID := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	uid, lifetime, created, updated := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	disabled, sealed := make([]bool, n), make([][]byte, n)
	for i, one := range rows {
		c := &one.row
		kmID[i], idB[i], aeID[i], cseID[i] = c.KmID.String(), c.IdB.String(), c.AEID.String(), c.CSEID.String()
		uid[i], lifetime[i], created[i], updated[i] = int64(c.UID), seconds(c.Lifetime), c.Created.Unix(), c.Updated.Unix()
		disabled[i], sealed[i] = c.Disabled, c.SealedKm
	}
	return []any{kmID, uid, idB, aeID, cseID, lifetime, disabled, created, updated, sealed}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func (s clients) Add(ctx context.Context, c store.Client) error { return s.db.clients.add(ctx, c) }

func (s clients) Update(ctx context.Context, c store.Client) error {
	return s.db.transact(ctx, func(tx pgx.Tx) error {
		old, err := lockClient(ctx, tx, c.KmID)
		if err != nil {
			return err
		}
		if old.uid != c.UID || old.version != c.Version {
			return store.ErrConflict
		}
		if !old.disabled && (c.Disabled || old.idB != c.IdB.String() || old.aeID != c.AEID.String() || old.cseID != c.CSEID.String()) {
			if err := logRevocation(ctx, tx, old.idB, c.KmID.String(), ""); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `UPDATE maf.client SET version = version + 1, id_b = $2, ae_id = $3, cse_id = $4,
			lifetime = $5, disabled = $6, updated = $7, sealed_km = $8 WHERE km_id = $1`,
			c.KmID.String(), c.IdB.String(), c.AEID.String(), c.CSEID.String(),
			seconds(c.Lifetime), c.Disabled, c.Updated.Unix(), c.SealedKm)
		return err
	})
}

func (s clients) Remove(ctx context.Context, id onem2m.KmID, uid store.UID) error {
	return s.db.transact(ctx, func(tx pgx.Tx) error {
		old, err := lockClient(ctx, tx, id)
		if err != nil {
			return err
		}
		if old.uid != uid {
			return store.ErrConflict
		}
		if err := logRevocation(ctx, tx, old.idB, id.String(), ""); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "DELETE FROM maf.client WHERE km_id = $1", id.String())
		return err
	})
}

// A lockedClient is what decides about a change, as texts: a damaged row can still
// be replaced and removed.
type lockedClient struct {
	uid              store.UID
	version          int64
	disabled         bool
	idB, aeID, cseID string
}

// lockClient reads a client that nobody else changes until the transaction ends.
func lockClient(ctx context.Context, tx pgx.Tx, id onem2m.KmID) (c lockedClient, err error) {
	err = tx.QueryRow(ctx, "SELECT uid, version, disabled, id_b, ae_id, cse_id FROM maf.client WHERE km_id = $1 FOR UPDATE", id.String()).
		Scan(&c.uid, &c.version, &c.disabled, &c.idB, &c.aeID, &c.cseID)
	if errors.Is(err, pgx.ErrNoRows) {
		err = store.ErrNotFound
	}
	return c, err
}

func (s clients) List(ctx context.Context, after onem2m.KmID, limit int) (page []store.Client, err error) {
	if limit <= 0 || limit > store.MaxPage {
		limit = store.MaxPage
	}
	var damaged []error
	err = s.db.eachClient(ctx, func(_ string, c store.Client, err error) {
		if err != nil {
			damaged = append(damaged, err)
			return
		}
		page = append(page, c)
	}, "WHERE km_id > $1 ORDER BY km_id LIMIT $2", after.String(), limit)
	if err = errors.Join(append(damaged, err)...); err != nil {
		return page, fmt.Errorf("pgstore: listing clients: %w", err)
	}
	return page, nil
}

// lookup is a Get that waits for its query.
type lookup struct {
	id     onem2m.KmID
	client store.Client
	err    error
}

func (s clients) Get(ctx context.Context, id onem2m.KmID) (store.Client, error) {
	l := &lookup{id: id}
	if err := s.db.reader.Do(ctx, l); err != nil {
		return store.Client{}, err
	}
	return l.client, l.err
}

// lookUpAll answers the lookups with one query.
func (db *DB) lookUpAll(group []*lookup) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ids := make([]string, 0, len(group))
	byID := make(map[string][]*lookup, len(group))
	for _, l := range group {
		id := l.id.String()
		if byID[id] == nil {
			ids = append(ids, id)
		}
		byID[id] = append(byID[id], l)
		l.err = store.ErrNotFound
	}
	err := db.eachClient(ctx, func(id string, c store.Client, err error) {
		for _, l := range byID[id] {
			l.client, l.err = c, err
		}
	}, "WHERE km_id = ANY($1)", ids)
	if err != nil {
		for _, l := range group {
			l.err = fmt.Errorf("pgstore: reading clients: %w", err)
		}
	}
}

// eachClient calls f for every client that the condition selects. The error that f
// gets says that this one row makes no sense, which must not hurt others.
func (db *DB) eachClient(ctx context.Context, f func(id string, c store.Client, err error), where string, args ...any) error {
	return db.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT "+clientColumns+" FROM maf.client "+where, args...)
		if err != nil {
			return err
		}
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
				err = fmt.Errorf("pgstore: the row of client %q is damaged: %w", id, err)
			}
			c.Lifetime = time.Duration(lifetime) * time.Second
			c.Created, c.Updated = time.Unix(created, 0).UTC(), time.Unix(updated, 0).UTC()
			f(id, c, err)
		}
		return rows.Err()
	})
}
