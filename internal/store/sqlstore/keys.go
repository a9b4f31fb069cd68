package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// keys is the role of store.KeyStore.
type keys struct{ db *DB }

func (s keys) Commit(ctx context.Context, k store.Key) error {
	if k.ID.FQDN != k.KmID.FQDN {
		return fmt.Errorf("sqlstore: key %v is not of the MAF of %v", k.ID, k.KmID)
	}
	return s.db.writer.change(ctx, &change{key: &k})
}

func (s keys) Get(ctx context.Context, id onem2m.KcID) (store.Key, error) {
	seq, ok := s.db.index.find(id.Relative)
	if !ok {
		return store.Key{}, store.ErrNotFound
	}
	var kmID, idB string
	var expires int64
	k := store.Key{ID: id}
	// relative is asked for too: the row may just have been purged, and another
	// one may stand in its place.
	err := s.db.read.QueryRowContext(ctx,
		"SELECT km_id, uid, id_b, expires, sealed_kc FROM kc WHERE seq = ? AND relative = ?", seq, id.Relative[:]).
		Scan(&kmID, &k.UID, &idB, &expires, &k.SealedKc)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Key{}, store.ErrNotFound
	}
	if err != nil {
		return store.Key{}, fmt.Errorf("sqlstore: reading key %v: %w", id, err)
	}
	if err := errors.Join(k.KmID.UnmarshalText([]byte(kmID)), k.IdB.UnmarshalText([]byte(idB))); err != nil {
		return store.Key{}, fmt.Errorf("sqlstore: the row of key %v is damaged: %w", id, err)
	}
	if k.KmID.FQDN != id.FQDN {
		return store.Key{}, store.ErrNotFound // another MAF's on the same server
	}
	k.Expires = time.Unix(expires, 0).UTC()
	return k, nil
}

// keyColumns is how many columns an inserter fills. It leaves out seq: SQLite
// gives each row one more than the largest in the table, and appends faster when
// it did that itself.
const keyColumns = 6

// inserter is a prepared INSERT of so many rows. Several rows in one statement
// cost little more than half of what they cost one by one. It belongs to the
// driver and not to database/sql, whose handling of the arguments would cost a
// tenth on top.
type inserter struct {
	rows int
	stmt driver.Stmt
	args []driver.NamedValue
}

func prepareInserts(conn *sql.Conn) (all []inserter, err error) {
	err = conn.Raw(func(c any) error {
		for _, n := range []int{64, 8, 1} {
			values := strings.Repeat(", (?, ?, ?, ?, ?, ?)", n)[2:]
			stmt, err := c.(driver.Conn).Prepare(
				"INSERT INTO kc (relative, km_id, uid, id_b, expires, sealed_kc) VALUES " + values)
			if err != nil {
				return err
			}
			args := make([]driver.NamedValue, n*keyColumns)
			for i := range args {
				args[i].Ordinal = i + 1
			}
			all = append(all, inserter{n, stmt, args})
		}
		return nil
	})
	return all, err
}

// insertKeys inserts the group's keys and returns the changes that did so; one
// whose RelativeKcId is taken gets store.ErrExists.
func (w *writer) insertKeys(ctx context.Context, group []*change) (added []*change, err error) {
	added = w.db.index.reserve(group)
	rest := added
	for _, insert := range w.insert {
		for len(rest) >= insert.rows {
			if err := insert.exec(ctx, w.conn, rest[:insert.rows]); err != nil {
				return added, err
			}
			rest = rest[insert.rows:]
		}
	}
	return added, nil
}

func (i inserter) exec(ctx context.Context, conn *sql.Conn, rows []*change) error {
	for n, c := range rows {
		k, args := c.key, i.args[n*keyColumns:]
		args[0].Value = k.ID.Relative[:]
		args[1].Value = k.KmID.String()
		args[2].Value = int64(k.UID)
		args[3].Value = k.IdB.String()
		args[4].Value = k.Expires.Unix()
		args[5].Value = k.SealedKc
	}
	var last int64
	err := conn.Raw(func(any) error {
		result, err := i.stmt.(driver.StmtExecContext).ExecContext(ctx, i.args)
		if err == nil {
			last, err = result.LastInsertId()
		}
		return err
	})
	if err != nil {
		return err
	}
	for n, c := range rows {
		c.seq = last - int64(len(rows)-1-n)
	}
	return nil
}
