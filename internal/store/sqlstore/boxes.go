package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
)

func (s clients) Boxes(ctx context.Context, prefix int) ([]store.BoxCount, error) {
	all, err := s.db.boxes(ctx, "SELECT substr(sealed_km, 1, ?), count(*), 0 FROM client GROUP BY 1", prefix)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: counting the clients' boxes: %w", err)
	}
	return all, nil
}

// Boxes goes stretch by stretch: a long read would keep the log from being moved
// into the database.
func (s keys) Boxes(ctx context.Context, after time.Time, prefix int) ([]store.BoxCount, error) {
	sum := make(map[string]store.BoxCount)
	for _, st := range s.db.index.stretches() {
		from, to := st.bounds()
		some, err := s.db.boxes(ctx, "SELECT substr(sealed_kc, 1, ?), count(*), max(expires) FROM kc WHERE seq >= ? AND seq < ? AND expires > ? GROUP BY 1",
			prefix, from, to, after.Unix())
		if err != nil {
			return nil, fmt.Errorf("sqlstore: counting the keys' boxes: %w", err)
		}
		for _, b := range some {
			if before := sum[b.Prefix]; before.Last.After(b.Last) {
				b.Last = before.Last
			}
			b.Count += sum[b.Prefix].Count
			sum[b.Prefix] = b
		}
	}
	return slices.SortedFunc(maps.Values(sum), func(a, b store.BoxCount) int { return cmp.Compare(a.Prefix, b.Prefix) }), nil
}

func (db *DB) boxes(ctx context.Context, query string, args ...any) (all []store.BoxCount, err error) {
	rows, err := db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b store.BoxCount
		var last int64
		if err := rows.Scan(&b.Prefix, &b.Count, &last); err != nil {
			return nil, err
		}
		if last > 0 {
			b.Last = time.Unix(last, 0).UTC()
		}
		all = append(all, b)
	}
	return all, rows.Err()
}
