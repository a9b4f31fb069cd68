package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"sync"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// keyIndex leads from a RelativeKcId to its row, and knows where keys expire.
// The writer reserves the identifiers of the rows that it is about to insert, and
// enters the rows after COMMIT and before it wakes anybody.
//
// Rows are looked after in stretches of 1024 by seq. Keys that were issued
// together mostly expire together, so it is enough to know each stretch's
// earliest expiry: the purge leaves the others alone and needs no index in the
// database that every insert would have to pay for.
type keyIndex struct {
	mu    sync.RWMutex
	rows  map[onem2m.RelativeKeyID]int64 // seq, or reserved; guarded by mu
	first map[stretch]int64              // the earliest expiry, for each stretch with a row; guarded by mu
}

// stretch is the number of a stretch of rows.
type stretch int64

const stretchLength = 1024

// reserved stands for the seq of a row that is not committed yet. No row has it:
// SQLite counts from 1.
const reserved = 0

func stretchOf(seq int64) stretch { return stretch(seq / stretchLength) }

// bounds returns the first seq of the stretch and the first beyond it.
func (s stretch) bounds() (from, to int64) {
	return int64(s) * stretchLength, int64(s+1) * stretchLength
}

func newKeyIndex() *keyIndex {
	return &keyIndex{rows: map[onem2m.RelativeKeyID]int64{}, first: map[stretch]int64{}}
}

func (x *keyIndex) len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.rows)
}

// find returns the seq of the row, which may be gone or not there yet.
func (x *keyIndex) find(id onem2m.RelativeKeyID) (seq int64, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	seq, ok = x.rows[id]
	return seq, ok
}

// reserve takes the identifiers of the changes' keys and returns those changes
// that got theirs. The others get store.ErrExists.
func (x *keyIndex) reserve(changes []*change) []*change {
	got := make([]*change, 0, len(changes))
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range changes {
		if c.key == nil {
			continue
		}
		if _, taken := x.rows[c.key.ID.Relative]; taken {
			c.err = store.ErrExists
			continue
		}
		x.rows[c.key.ID.Relative] = reserved
		got = append(got, c)
	}
	return got
}

// settle turns what was reserved into rows, or gives it free when the
// transaction failed.
func (x *keyIndex) settle(changes []*change, committed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range changes {
		if committed {
			x.addLocked(c.key.ID.Relative, c.seq, c.key.Expires.Unix())
		} else {
			delete(x.rows, c.key.ID.Relative)
		}
	}
}

func (x *keyIndex) addLocked(id onem2m.RelativeKeyID, seq, expires int64) {
	x.rows[id] = seq
	s := stretchOf(seq)
	if first, ok := x.first[s]; !ok || expires < first {
		x.first[s] = expires
	}
}

// remove records that rows of a stretch were removed and what the earliest
// expiry of the others is; it is not valid when there are none.
func (x *keyIndex) remove(s stretch, ids []onem2m.RelativeKeyID, first sql.NullInt64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		delete(x.rows, id)
	}
	if first.Valid {
		x.first[s] = first.Int64
	} else {
		delete(x.first, s)
	}
}

// due returns a stretch in which a key has expired.
func (x *keyIndex) due(now int64) (stretch, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for s, first := range x.first {
		if first <= now {
			return s, true
		}
	}
	return 0, false
}

// stretches returns all that have rows.
func (x *keyIndex) stretches() []stretch {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]stretch, 0, len(x.first))
	for s := range x.first {
		all = append(all, s)
	}
	return all
}

// load reads all rows into an empty index, some thousands in each query.
func (x *keyIndex) load(ctx context.Context, db *sql.DB) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	const page = 16 * stretchLength
	for last, n := int64(0), page; n == page; {
		var err error
		if n, last, err = x.loadPage(ctx, db, last, page); err != nil {
			return fmt.Errorf("indexing the keys: %w", err)
		}
	}
	return nil
}

func (x *keyIndex) loadPage(ctx context.Context, db *sql.DB, after int64, limit int) (n int, last int64, err error) {
	rows, err := db.QueryContext(ctx, "SELECT seq, relative, expires FROM kc WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	var seq, expires int64
	var relative sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&seq, &relative, &expires); err != nil {
			return 0, 0, err
		}
		if len(relative) != len(onem2m.RelativeKeyID{}) {
			return 0, 0, fmt.Errorf("row %d: RelativeKcId of %d octets", seq, len(relative))
		}
		x.addLocked(onem2m.RelativeKeyID(relative), seq, expires)
		n++
	}
	return n, seq, rows.Err()
}
