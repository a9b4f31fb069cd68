package coap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Transfer says how a client carries what doesn't fit into one message.
type Transfer struct {
	// SZX is the size exponent of the blocks that are sent and asked for, 0 to 6.
	SZX uint8
	// Max is the largest answer that is put together, in octets.
	Max int
}

// Errors of a block-wise transfer.
var (
	ErrTooLarge = errors.New("coap: the answer is too large")
	ErrBlock    = errors.New("coap: blocks that don't fit together")
)

// Exchange is Do for requests and answers of any size (RFC 7959).
func (t Transfer) Exchange(ctx context.Context, e *Endpoint, request *Message) (*Message, error) {
	answer, err := t.send(ctx, e, request)
	if err != nil {
		return nil, err
	}
	return t.Rest(ctx, e, request, answer)
}

// send sends the request, in blocks when it is larger than one, and returns the answer to
// the last.
func (t Transfer) send(ctx context.Context, e *Endpoint, request *Message) (*Message, error) {
	block := Block{SZX: t.SZX}
	if len(request.Payload) <= block.Size() {
		return e.Do(ctx, request)
	}
	for {
		offset := block.Offset()
		end := min(offset+block.Size(), len(request.Payload))
		block.More = end < len(request.Payload)
		part := Message{Code: request.Code, Payload: request.Payload[offset:end]}
		part.Options = append(part.Options, request.Options...)
		part.Options.AddBlock(Block1, block)
		if offset == 0 {
			part.Options.AddUint(Size1, uint32(len(request.Payload)))
		}
		answer, err := e.Do(ctx, &part)
		if err != nil {
			return nil, err
		}
		theirs, present, valid := answer.Options.Block(Block1)
		smaller := present && valid && theirs.SZX < block.SZX
		switch {
		case present && !valid:
			return nil, fmt.Errorf("%w: Block1 in the answer", ErrBlock)
		case answer.Code == RequestEntityTooLarge && offset == 0 && smaller:
			block.SZX = theirs.SZX // try again (section 2.9.3)
			continue
		case answer.Code != Continue || !block.More:
			return answer, nil
		case !present || theirs.Number != block.Number:
			return nil, fmt.Errorf("%w: Block1 in the answer", ErrBlock)
		case smaller: // section 2.5: it goes on in smaller ones
			block.SZX = theirs.SZX
		}
		block.Number = uint32(end / block.Size())
	}
}

// Rest gets what an answer's first block leaves out, and returns the whole.
func (t Transfer) Rest(ctx context.Context, e *Endpoint, request, first *Message) (*Message, error) {
	block, present, valid := first.Options.Block(Block2)
	if !present {
		return first, nil
	}
	if !valid || block.Number != 0 {
		return nil, fmt.Errorf("%w: the first is not the first", ErrBlock)
	}
	whole := *first
	whole.Options = append(Options(nil), first.Options...)
	whole.Options.Remove(Block2, Size2)
	whole.Payload = append([]byte(nil), first.Payload...)
	tag, _ := first.Options.Get(ETag)
	for block.More {
		if len(whole.Payload)%block.Size() != 0 || len(whole.Payload) == 0 {
			return nil, fmt.Errorf("%w: one of %d octets", ErrBlock, len(whole.Payload))
		}
		szx := min(block.SZX, t.SZX)
		next := Block{SZX: szx, Number: uint32(len(whole.Payload) >> (4 + szx))}
		ask := Message{Code: request.Code}
		ask.Options = append(ask.Options, request.Options...)
		ask.Options.AddBlock(Block2, next)
		answer, err := e.Do(ctx, &ask)
		if err != nil {
			return nil, err
		}
		block, present, valid = answer.Options.Block(Block2)
		newTag, _ := answer.Options.Get(ETag)
		switch {
		case answer.Code != first.Code || !present || !valid || block.Offset() != len(whole.Payload):
			return nil, fmt.Errorf("%w: got %v", ErrBlock, answer.Code)
		case !bytes.Equal(tag, newTag):
			return nil, fmt.Errorf("%w: the resource changed", ErrBlock)
		case len(answer.Payload) > block.Size() || len(answer.Payload) == 0:
			return nil, fmt.Errorf("%w: one of %d octets", ErrBlock, len(answer.Payload))
		case len(whole.Payload)+len(answer.Payload) > t.Max:
			return nil, ErrTooLarge
		}
		whole.Payload = append(whole.Payload, answer.Payload...)
	}
	return &whole, nil
}
