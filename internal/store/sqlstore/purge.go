package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// Purge clears one stretch of rows per call; a round ends when no stretch has
// an expired key left.
func (s keys) Purge(ctx context.Context, now time.Time) (removed int, done bool, err error) {
	due, ok := s.db.index.due(now.Unix())
	if !ok {
		return 0, true, ctx.Err()
	}
	removed, err = s.db.removeKeys(ctx, due, "expires <= ?", now.Unix())
	return removed, false, err
}

// RemoveByClient looks through all keys, stretch by stretch, on a connection
// that disturbs nobody, and troubles the writer only where there is something
// to remove. An index by client would make this fast and every handshake slower.
func (s keys) RemoveByClient(ctx context.Context, id onem2m.KmID, uid store.UID) (removed int, err error) {
	const match = "km_id = ? AND uid = ?"
	for _, st := range s.db.index.stretches() {
		var found bool
		from, to := st.bounds()
		err := s.db.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM kc WHERE seq >= ? AND seq < ? AND "+match+")",
			from, to, id.String(), int64(uid)).Scan(&found)
		if err != nil {
			return removed, fmt.Errorf("sqlstore: looking for the keys of %v: %w", id, err)
		}
		if !found {
			continue
		}
		n, err := s.db.removeKeys(ctx, st, match, id.String(), int64(uid))
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// removeKeys removes the rows of a stretch for which the condition holds.
func (db *DB) removeKeys(ctx context.Context, s stretch, condition string, args ...any) (int, error) {
	return db.removeKeysAnd(ctx, s, func(context.Context, *sql.Conn) error { return nil }, condition, args...)
}

// removeKeysAnd does something else before, in the same transaction.
func (db *DB) removeKeysAnd(ctx context.Context, s stretch, before func(context.Context, *sql.Conn) error, condition string, args ...any) (int, error) {
	var gone []onem2m.RelativeKeyID
	var first sql.NullInt64
	from, to := s.bounds()
	err := db.writer.change(ctx, &change{
		do: func(ctx context.Context, conn *sql.Conn) (err error) {
			if err := before(ctx, conn); err != nil {
				return err
			}
			gone, err = deleteReturning(ctx, conn, "seq >= ? AND seq < ? AND "+condition, append([]any{from, to}, args...))
			if err != nil {
				return err
			}
			return conn.QueryRowContext(ctx, "SELECT min(expires) FROM kc WHERE seq >= ? AND seq < ?", from, to).Scan(&first)
		},
		after: func(committed bool) {
			if committed {
				db.index.remove(s, gone, first)
			}
		},
	})
	if err != nil {
		return 0, err
	}
	return len(gone), nil
}

func deleteReturning(ctx context.Context, conn *sql.Conn, where string, args []any) ([]onem2m.RelativeKeyID, error) {
	rows, err := conn.QueryContext(ctx, "DELETE FROM kc WHERE "+where+" RETURNING relative", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var gone []onem2m.RelativeKeyID
	var relative sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&relative); err != nil {
			return nil, err
		}
		gone = append(gone, onem2m.RelativeKeyID(relative))
	}
	return gone, rows.Err()
}
