package coap

// Block is the value of a Block1 or Block2 option (RFC 7959 section 2.2).
type Block struct {
	Number uint32 // 20 bits
	More   bool
	SZX    uint8 // 0 to 6: blocks of 16 to 1024 octets
}

// MaxSZX is the size exponent of the largest block, 1024 octets.
const MaxSZX = 6

// Size returns the octets in a block that is not the last.
func (b Block) Size() int { return 16 << b.SZX }

// Offset returns where in the whole the block begins. It is below 2^30.
func (b Block) Offset() int { return int(b.Number) * b.Size() }

// Block returns the value of a Block1 or Block2 option. It is not valid when its size
// exponent is the reserved 7.
func (o Options) Block(number uint16) (b Block, present, valid bool) {
	n, ok := o.Uint(number)
	if !ok {
		return Block{}, o.Has(number), false
	}
	b = Block{Number: n >> 4, More: n>>3&1 == 1, SZX: uint8(n & 7)}
	return b, true, b.SZX <= MaxSZX && n < 1<<24
}

// AddBlock adds a Block1 or Block2 option.
func (o *Options) AddBlock(number uint16, b Block) {
	n := b.Number<<4 | uint32(b.SZX)
	if b.More {
		n |= 1 << 3
	}
	o.AddUint(number, n)
}
