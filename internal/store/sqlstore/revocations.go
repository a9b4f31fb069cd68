package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// logRevocation adds the row of id_b, km_id and kc_id that the query selects, if
// it selects one, and drops the oldest. There is one writer, so the order of seq
// is that of commits.
func logRevocation(ctx context.Context, conn *sql.Conn, query string, args ...any) error {
	n, err := exec(ctx, conn, "INSERT INTO revocation (id_b, km_id, kc_id) "+query, args...)
	if err != nil || n == 0 {
		return err
	}
	_, err = exec(ctx, conn, "DELETE FROM revocation WHERE seq <= (SELECT max(seq) FROM revocation) - ?", store.KeepRevocations)
	return err
}

func (s keys) Revoke(ctx context.Context, id onem2m.KcID) error {
	// The index and Get decide which key that is; the transaction sees whether it
	// is still there.
	k, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	seq, ok := s.db.index.find(id.Relative)
	if !ok {
		return store.ErrNotFound
	}
	const match = "seq = ? AND relative = ?"
	_, err = s.db.removeKeysAnd(ctx, stretchOf(seq), func(ctx context.Context, conn *sql.Conn) error {
		var found bool
		if err := conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM kc WHERE "+match+")", seq, id.Relative[:]).Scan(&found); err != nil {
			return err
		}
		if !found {
			return store.ErrNotFound
		}
		return logRevocation(ctx, conn, "VALUES (?, ?, ?)", k.IdB.String(), k.KmID.String(), id.String())
	}, match, seq, id.Relative[:])
	return err
}

func (s keys) LastRevocation(ctx context.Context) (last int64, err error) {
	err = s.db.read.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM revocation").Scan(&last)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: reading the revocations: %w", err)
	}
	return last, nil
}

func (s keys) Revocations(ctx context.Context, after int64, limit int) ([]store.Revocation, error) {
	if limit <= 0 || limit > store.MaxPage {
		limit = store.MaxPage
	}
	page, first, last, err := s.revocations(ctx, after, limit)
	switch {
	case err != nil:
		return nil, fmt.Errorf("sqlstore: reading the revocations: %w", err)
	case after > last || after < first-1:
		return nil, store.ErrGone
	}
	return page, nil
}

// revocations returns a page and what the whole log reaches from and to, of one
// moment. An empty log reaches from 1 to 0.
func (s keys) revocations(ctx context.Context, after int64, limit int) (page []store.Revocation, first, last int64, err error) {
	// An outer join: bounds come also with an empty page.
	rows, err := s.db.read.QueryContext(ctx, `
		SELECT bounds.first, bounds.last, r.seq, r.id_b, r.km_id, r.kc_id
		FROM (SELECT coalesce((SELECT min(seq) FROM revocation), 1) AS first, coalesce((SELECT max(seq) FROM revocation), 0) AS last) AS bounds
		LEFT JOIN revocation AS r ON r.seq > ? ORDER BY r.seq LIMIT ?`, after, limit)
	if err != nil {
		return nil, 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var seq sql.NullInt64
		var idB, kmID, kcID sql.NullString
		if err := rows.Scan(&first, &last, &seq, &idB, &kmID, &kcID); err != nil {
			return nil, 0, 0, err
		}
		if !seq.Valid {
			continue
		}
		r := store.Revocation{Seq: seq.Int64}
		err := errors.Join(
			r.IdB.UnmarshalText([]byte(idB.String)),
			r.KmID.UnmarshalText([]byte(kmID.String)),
			r.KcID.UnmarshalText([]byte(kcID.String)))
		if err != nil {
			return nil, 0, 0, fmt.Errorf("row %d is damaged: %w", seq.Int64, err)
		}
		page = append(page, r)
	}
	return page, first, last, rows.Err()
}
