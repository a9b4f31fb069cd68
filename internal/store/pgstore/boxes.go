package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/onem2m-maf/maf/internal/store"
)

func (s clients) Boxes(ctx context.Context, prefix int) ([]store.BoxCount, error) {
	all, err := s.db.boxes(ctx, "SELECT substr(sealed_km, 1, $1), count(*), 0::bigint FROM maf.client GROUP BY 1 ORDER BY 1", prefix)
	if err != nil {
		return nil, fmt.Errorf("pgstore: counting the clients' boxes: %w", err)
	}
	return all, nil
}

func (s keys) Boxes(ctx context.Context, after time.Time, prefix int) ([]store.BoxCount, error) {
	all, err := s.db.boxes(ctx, "SELECT substr(sealed_kc, 1, $1), count(*), max(expires) FROM maf.kc WHERE expires > $2 GROUP BY 1 ORDER BY 1", prefix, after.Unix())
	if err != nil {
		return nil, fmt.Errorf("pgstore: counting the keys' boxes: %w", err)
	}
	return all, nil
}

func (db *DB) boxes(ctx context.Context, query string, args ...any) (all []store.BoxCount, err error) {
	err = db.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b store.BoxCount, err error) {
			var octets []byte
			var last int64
			err = row.Scan(&octets, &b.Count, &last)
			b.Prefix = string(octets)
			if last > 0 {
				b.Last = time.Unix(last, 0).UTC()
			}
			return b, err
		})
		return err
	})
	return all, err
}
