package pgstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Counts returns how many clients there are, and how many Kcs that have not been
// purged yet. Of a table above some 64 MiB it returns PostgreSQL's own estimate: to
// count millions of rows every minute on each node would cost more than it tells.
func (db *DB) Counts(ctx context.Context) (clients, keys int, err error) {
	err = db.with(ctx, func(conn *pgx.Conn) error {
		if clients, err = count(ctx, conn, "maf.client"); err == nil {
			keys, err = count(ctx, conn, "maf.kc")
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("pgstore: counting: %w", err)
	}
	return clients, keys, nil
}

func count(ctx context.Context, conn *pgx.Conn, table string) (n int, err error) {
	// An estimate below zero says that there never was one.
	err = conn.QueryRow(ctx, `SELECT CASE WHEN pg_relation_size(oid) > 64 << 20 AND reltuples >= 0
		THEN reltuples::bigint ELSE (SELECT count(*) FROM `+table+`) END
		FROM pg_class WHERE oid = $1::text::regclass`, table).Scan(&n)
	return n, err
}
