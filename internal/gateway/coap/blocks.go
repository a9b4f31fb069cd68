package coap

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// Blocks is the server's half of block-wise transfer with one peer (RFC 7959): it puts
// requests together and takes answers apart. The zero value with its exported fields set is
// ready for use.
type Blocks struct {
	// SZX is the size exponent of the largest block that is taken or sent.
	SZX uint8
	// Max is the largest request that is put together.
	Max int

	mu      sync.Mutex  // guards what follows
	uploads []*transfer // requests in parts, by the time of their last part
	answers []*transfer // answers that are being fetched
	timer   *time.Timer
}

const (
	// A peer is not expected to do more than this at once. The oldest give way.
	maxTransfers = 2
	// transferIdle is for how long a transfer may rest: a peer that retransmits to the
	// end needs 93 s (MAX_TRANSMIT_WAIT).
	transferIdle = 100 * time.Second
)

type transfer struct {
	key     [sha256.Size]byte
	touched time.Time
	message Message // the request so far, or the whole answer
}

// Serve answers a request by way of handle, which gets whole requests and may return
// answers of any size.
func (b *Blocks) Serve(ctx context.Context, request *Message, handle func(context.Context, *Message) *Message) *Message {
	key := transferKey(request)
	block2, has2, valid2 := request.Options.Block(Block2)
	block1, has1, valid1 := request.Options.Block(Block1)
	switch {
	case has1 && !valid1 || has2 && (!valid2 || block2.More):
		return &Message{Code: BadRequest}
	case has2 && block2.Number > 0 && (!has1 || !block1.More):
		if whole := b.answer(key); whole != nil {
			return b.slice(key, whole, block2)
		}
		if request.Code != GET {
			// Only the answer to a GET may be made a second time.
			return &Message{Code: RequestEntityIncomplete}
		}
	}
	whole := *request
	if has1 {
		var refusal *Message
		if whole.Payload, refusal = b.collect(key, request, block1); refusal != nil {
			return refusal
		}
	} else if len(request.Payload) > b.Max {
		return b.tooLarge(nil)
	}
	whole.Options = slices.Clone(request.Options)
	whole.Options.Remove(Block1, Block2, Size1, Size2)
	answer := handle(ctx, &whole)
	if answer == nil {
		return nil
	}
	if !has2 {
		block2 = Block{SZX: b.SZX}
	}
	answer = b.slice(key, answer, block2)
	if has1 {
		answer.Options.AddBlock(Block1, Block{Number: block1.Number, SZX: block1.SZX})
	}
	return answer
}

// Keep makes the first block of an answer that nobody asked for, a notification to the
// given request, and keeps the rest for the peer to fetch.
func (b *Blocks) Keep(request, answer *Message) *Message {
	return b.slice(transferKey(request), answer, Block{SZX: b.SZX})
}

// collect adds a block to what there is of a request. It returns the whole payload when
// the block was the last, else what the peer is told.
func (b *Blocks) collect(key [sha256.Size]byte, request *Message, block Block) (whole []byte, refusal *Message) {
	if size, ok := request.Options.Uint(Size1); ok && int64(size) > int64(b.Max) {
		return nil, b.tooLarge(&block)
	}
	if block.More && len(request.Payload) != block.Size() || len(request.Payload) > block.Size() {
		return nil, &Message{Code: BadRequest}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var t *transfer
	b.uploads, t = take(b.uploads, key)
	if block.Number == 0 {
		t = &transfer{key: key}
	}
	switch {
	case t == nil || len(t.message.Payload) != block.Offset():
		return nil, &Message{Code: RequestEntityIncomplete}
	case block.Offset()+len(request.Payload) > b.Max:
		return nil, b.tooLarge(&block)
	}
	t.message.Payload = append(t.message.Payload, request.Payload...)
	if !block.More {
		return t.message.Payload, nil
	}
	b.uploads = b.put(b.uploads, t)
	next := &Message{Code: Continue}
	next.Options.AddBlock(Block1, Block{Number: block.Number, More: true, SZX: min(block.SZX, b.SZX)})
	return nil, next
}

func (b *Blocks) tooLarge(block *Block) *Message {
	m := &Message{Code: RequestEntityTooLarge}
	if block != nil {
		m.Options.AddBlock(Block1, Block{Number: block.Number, SZX: min(block.SZX, b.SZX)})
	}
	m.Options.AddUint(Size1, uint32(b.Max))
	return m
}

// answer returns a kept answer.
func (b *Blocks) answer(key [sha256.Size]byte) *Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var t *transfer
	if b.answers, t = take(b.answers, key); t == nil {
		return nil
	}
	b.answers = b.put(b.answers, t)
	return &t.message
}

// slice returns the block of an answer that is wanted, and keeps the answer while there
// are more.
func (b *Blocks) slice(key [sha256.Size]byte, whole *Message, want Block) *Message {
	want.SZX = min(want.SZX, b.SZX)
	offset := want.Offset()
	if offset == 0 && len(whole.Payload) <= want.Size() {
		return whole
	}
	if offset >= len(whole.Payload) {
		return &Message{Code: BadOption}
	}
	end := min(offset+want.Size(), len(whole.Payload))
	part := &Message{Code: whole.Code, Options: slices.Clone(whole.Options), Payload: whole.Payload[offset:end]}
	if !whole.Options.Has(ETag) {
		// So that the peer doesn't put blocks of two answers together.
		sum := sha256.Sum256(whole.Payload)
		part.Options.Add(ETag, sum[:8])
	}
	part.Options.AddBlock(Block2, Block{Number: want.Number, More: end < len(whole.Payload), SZX: want.SZX})
	if offset == 0 {
		part.Options.AddUint(Size2, uint32(len(whole.Payload)))
		kept := &transfer{key: key, message: Message{Code: whole.Code, Options: slices.Clone(whole.Options), Payload: whole.Payload}}
		kept.message.Options.Remove(Observe) // only of the first block (RFC 7959 section 2.6)
		b.mu.Lock()
		b.answers, _ = take(b.answers, key)
		b.answers = b.put(b.answers, kept)
		b.mu.Unlock()
	}
	return part
}

// transferKey tells which requests belong to one transfer: those that differ in nothing but
// their place in it (RFC 7959 section 2.4).
func transferKey(m *Message) [sha256.Size]byte {
	k := Message{Code: m.Code, Options: slices.Clone(m.Options)}
	k.Options.Remove(Block1, Block2, Size1, Size2, Observe)
	return sha256.Sum256(k.Append(nil))
}

// take removes a transfer from a list.
func take(list []*transfer, key [sha256.Size]byte) ([]*transfer, *transfer) {
	i := slices.IndexFunc(list, func(t *transfer) bool { return t.key == key })
	if i < 0 {
		return list, nil
	}
	t := list[i]
	return slices.Delete(list, i, i+1), t
}

// put adds a transfer to a list as its latest. b.mu is held.
func (b *Blocks) put(list []*transfer, t *transfer) []*transfer {
	t.touched = time.Now()
	if len(list) == maxTransfers {
		list = slices.Delete(list, 0, 1)
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(transferIdle, b.expire)
	}
	return append(list, t)
}

func (b *Blocks) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := func(t *transfer) bool { return time.Since(t.touched) >= transferIdle }
	b.uploads = slices.DeleteFunc(b.uploads, old)
	b.answers = slices.DeleteFunc(b.answers, old)
	if len(b.uploads)+len(b.answers) > 0 {
		b.timer.Reset(transferIdle)
		return
	}
	b.uploads, b.answers, b.timer = nil, nil, nil
}

// Close forgets everything.
func (b *Blocks) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
	b.uploads, b.answers, b.timer = nil, nil, nil
}
