package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// channel is what NOTIFY says that there are new revocations on.
const channel = "maf_revocation"

// logRevocation adds a line, drops the oldest, and wakes all nodes when the
// transaction commits. From here to there the row of position is locked, so the
// order of seq is that of commits. Whoever comes here may hold a lock on the row of
// a client or a key, and takes no other any more: so nobody waits in a circle.
func logRevocation(ctx context.Context, tx pgx.Tx, idB, kmID, kcID string) error {
	var seq int64
	if err := tx.QueryRow(ctx, "UPDATE maf.position SET last = last + 1 RETURNING last").Scan(&seq); err != nil {
		return err
	}
	var b pgx.Batch
	b.Queue("INSERT INTO maf.revocation (seq, id_b, km_id, kc_id) VALUES ($1, $2, $3, $4)", seq, idB, kmID, kcID)
	b.Queue("DELETE FROM maf.revocation WHERE seq <= $1", seq-store.KeepRevocations)
	b.Queue("SELECT pg_notify($1, '')", channel)
	return tx.SendBatch(ctx, &b).Close()
}

func (s keys) Revoke(ctx context.Context, id onem2m.KcID) error {
	k, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	return s.db.transact(ctx, func(tx pgx.Tx) error {
		// The key never changes, but it may be gone by now.
		tag, err := tx.Exec(ctx, "DELETE FROM maf.kc WHERE relative = $1 AND km_id = $2 AND uid = $3", [16]byte(id.Relative), k.KmID.String(), int64(k.UID))
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return store.ErrNotFound
		}
		return logRevocation(ctx, tx, k.IdB.String(), k.KmID.String(), id.String())
	})
}

func (s keys) LastRevocation(ctx context.Context) (last int64, err error) {
	err = s.db.with(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT last FROM maf.position").Scan(&last)
	})
	if err != nil {
		return 0, fmt.Errorf("pgstore: reading the revocations: %w", err)
	}
	return last, nil
}

func (s keys) Revocations(ctx context.Context, after int64, limit int) (page []store.Revocation, err error) {
	if limit <= 0 || limit > store.MaxPage {
		limit = store.MaxPage
	}
	var first, last int64
	err = s.db.with(ctx, func(conn *pgx.Conn) error {
		page, first, last, err = revocations(ctx, conn, after, limit)
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("pgstore: reading the revocations: %w", err)
	case after > last || after < first-1:
		return nil, store.ErrGone
	}
	return page, nil
}

// revocations returns a page and what the whole log reaches from and to, of one
// moment. An empty log reaches from 1 to 0.
func revocations(ctx context.Context, conn *pgx.Conn, after int64, limit int) (page []store.Revocation, first, last int64, err error) {
	// An outer join: bounds come also with an empty page.
	rows, err := conn.Query(ctx, `
		SELECT bounds.first, bounds.last, r.seq, r.id_b, r.km_id, r.kc_id
		FROM (SELECT coalesce((SELECT min(seq) FROM maf.revocation), last + 1) AS first, last FROM maf.position) AS bounds
		LEFT JOIN maf.revocation AS r ON r.seq > $1 ORDER BY r.seq LIMIT $2`, after, limit)
	if err != nil {
		return nil, 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var seq *int64
		var idB, kmID, kcID *string
		if err := rows.Scan(&first, &last, &seq, &idB, &kmID, &kcID); err != nil {
			return nil, 0, 0, err
		}
		if seq == nil {
			continue
		}
		r := store.Revocation{Seq: *seq}
		err := errors.Join(
			r.IdB.UnmarshalText([]byte(*idB)),
			r.KmID.UnmarshalText([]byte(*kmID)),
			r.KcID.UnmarshalText([]byte(*kcID)))
		if err != nil {
			return nil, 0, 0, fmt.Errorf("row %d is damaged: %w", *seq, err)
		}
		page = append(page, r)
	}
	return page, first, last, rows.Err()
}
