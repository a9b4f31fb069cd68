package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/onem2m-maf/maf/internal/combine"
	"github.com/onem2m-maf/maf/internal/store"
)

// An adder inserts rows: those that wait at the same time in one statement, which
// is one transaction and one sync of PostgreSQL's log.
type adder[Row any, ID comparable] struct {
	*combine.Combiner[addition[Row]]
	db     *DB
	insert string // INSERT ... SELECT ... FROM unnest($1, ...)
	column string // the identifier's
	id     func(*Row) ID
	// values turns the rows into the arrays that insert takes.
	values func([]*addition[Row]) []any
}

type addition[Row any] struct {
	row Row
	err error
}

func (a *adder[Row, ID]) start(interval time.Duration) *adder[Row, ID] {
	a.Combiner = combine.New(groupLimit, interval, a.addAll)
	return a
}

// uniqueViolation is what PostgreSQL calls it.
const uniqueViolation = "23505"

// add returns store.ErrExists when the row's identifier is taken.
func (a *adder[Row, ID]) add(ctx context.Context, row Row) error {
	one := &addition[Row]{row: row}
	if err := a.Do(ctx, one); err != nil {
		return err
	}
	return one.err
}

// addAll inserts the rows of a group, or nothing.
func (a *adder[Row, ID]) addAll(group []*addition[Row]) {
	// Not the callers' contexts: one that gives up must not take the others' rows
	// with it.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	byID := make(map[ID]*addition[Row], len(group))
	first := make([]*addition[Row], 0, len(group))
	for _, one := range group {
		if id := a.id(&one.row); byID[id] == nil {
			byID[id] = one
			first = append(first, one)
		} else {
			one.err = store.ErrExists // whoever has it, that one or one before
		}
	}
	begin := time.Now()
	err := a.db.with(ctx, func(conn *pgx.Conn) error {
		args := a.values(first)
		_, err := conn.Exec(ctx, a.insert, args...)
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == uniqueViolation {
			return a.addNew(ctx, conn, args, byID)
		}
		return err
	})
	a.db.told(len(group), time.Since(begin), err)
	if err != nil {
		err = fmt.Errorf("pgstore: the transaction failed: %w", err)
		for _, one := range group {
			one.err = err
		}
	}
}

// addNew inserts the rows whose identifiers are free. Asking for conflicts costs
// more than not to, and they hardly ever happen, so it comes second.
func (a *adder[Row, ID]) addNew(ctx context.Context, conn *pgx.Conn, args []any, byID map[ID]*addition[Row]) error {
	rows, err := conn.Query(ctx, a.insert+" ON CONFLICT DO NOTHING RETURNING "+a.column, args...)
	if err != nil {
		return err
	}
	// What CollectRows returns without an error was committed.
	added, err := pgx.CollectRows(rows, pgx.RowTo[ID])
	if err != nil {
		return err
	}
	for _, one := range byID {
		one.err = store.ErrExists
	}
	for _, id := range added {
		byID[id].err = nil
	}
	return nil
}
