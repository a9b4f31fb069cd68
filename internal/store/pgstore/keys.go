package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// keys is the role of store.KeyStore.
type keys struct{ db *DB }

func newKeyAdder(db *DB, interval time.Duration) *adder[store.Key, [16]byte] {
	a := &adder[store.Key, [16]byte]{
		db:     db,
		column: "relative",
		id:     func(k *store.Key) [16]byte { return k.ID.Relative },
		insert: `INSERT INTO maf.kc (relative, uid, expires, km_id, id_b, sealed_kc)
			SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[])`,
		values: keyArrays,
	}
	return a.start(interval)
}

func keyArrays(rows []*addition[store.Key]) []any {
	n := len(rows)
	relative, sealed := make([][16]byte, n), make([][]byte, n)
	uid, expires := make([]int64, n), make([]int64, n)
	kmID, idB := make([]string, n), make([]string, n)
	for i, one := range rows {
		k := &one.row
		relative[i], sealed[i] = k.ID.Relative, k.SealedKc
		uid[i], expires[i] = int64(k.UID), k.Expires.Unix()
		kmID[i], idB[i] = k.KmID.String(), k.IdB.String()
	}
	return []any{relative, uid, expires, kmID, idB, sealed}
}

func (s keys) Commit(ctx context.Context, k store.Key) error {
	if k.ID.FQDN != k.KmID.FQDN {
		return fmt.Errorf("pgstore: key %v is not of the MAF of %v", k.ID, k.KmID)
	}
	return s.db.keys.add(ctx, k)
}

func (s keys) Get(ctx context.Context, id onem2m.KcID) (store.Key, error) {
	k := store.Key{ID: id}
	var kmID, idB string
	var expires int64
	err := s.db.with(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT km_id, uid, id_b, expires, sealed_kc FROM maf.kc WHERE relative = $1", [16]byte(id.Relative)).
			Scan(&kmID, &k.UID, &idB, &expires, &k.SealedKc)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Key{}, store.ErrNotFound
	}
	if err != nil {
		return store.Key{}, fmt.Errorf("pgstore: reading key %v: %w", id, err)
	}
	if err := errors.Join(k.KmID.UnmarshalText([]byte(kmID)), k.IdB.UnmarshalText([]byte(idB))); err != nil {
		return store.Key{}, fmt.Errorf("pgstore: the row of key %v is damaged: %w", id, err)
	}
	if k.KmID.FQDN != id.FQDN {
		return store.Key{}, store.ErrNotFound // another MAF's on the same server
	}
	k.Expires = time.Unix(expires, 0).UTC()
	return k, nil
}

// bite is how many rows one transaction removes.
const bite = 1000

// Purge removes a bite. Rows are never updated, so their ctid stays theirs for as
// long as the statement sees them.
func (s keys) Purge(ctx context.Context, now time.Time) (removed int, done bool, err error) {
	removed, err = s.db.removeKeys(ctx, `DELETE FROM maf.kc WHERE ctid = ANY (ARRAY (
		SELECT ctid FROM maf.kc WHERE expires <= $1 ORDER BY expires LIMIT $2))`, now.Unix(), bite)
	return removed, err == nil && removed < bite, err
}

// RemoveByClient reads through all keys, which disturbs nobody, and then removes
// those that it found. An index by client would make this fast and every handshake
// slower.
func (s keys) RemoveByClient(ctx context.Context, id onem2m.KmID, uid store.UID) (removed int, err error) {
	var found [][16]byte
	err = s.db.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT relative FROM maf.kc WHERE km_id = $1 AND uid = $2", id.String(), int64(uid))
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("pgstore: looking for the keys of %v: %w", id, err)
	}
	for some := range slices.Chunk(found, bite) {
		// What was purged in between may be another client's by now.
		n, err := s.db.removeKeys(ctx, "DELETE FROM maf.kc WHERE relative = ANY($1) AND km_id = $2 AND uid = $3", some, id.String(), int64(uid))
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// removeKeys has one node at a time remove many keys: two that lock the same rows
// in different orders would wait for each other.
func (db *DB) removeKeys(ctx context.Context, statement string, args ...any) (removed int, err error) {
	err = db.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", lockSpace, lockRemoval); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, statement, args...)
		removed = int(tag.RowsAffected())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("pgstore: removing keys: %w", err)
	}
	return removed, nil
}
