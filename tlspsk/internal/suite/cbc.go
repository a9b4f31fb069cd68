package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"hash"
)

// cbcProtection is AES-CBC with HMAC-SHA-256, as MAC-then-encrypt (RFC 5246
// section 6.2.3.2) or encrypt-then-MAC (RFC 7366).
type cbcProtection struct {
	block          cipher.Block
	mac            hash.Hash
	ctMAC          *constantTimeMAC // nil with encrypt-then-MAC
	encryptThenMAC bool
	ad             []byte
	sum            [cbcMACLen]byte
}

func newCBCProtection(macKey, key []byte, encryptThenMAC bool) (*cbcProtection, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	p := &cbcProtection{block: block, mac: hmac.New(sha256.New, macKey), encryptThenMAC: encryptThenMAC}
	if !encryptThenMAC {
		p.ctMAC, err = newConstantTimeMAC(macKey)
	}
	return p, err
}

func (p *cbcProtection) Overhead() int { return cbcIVLen + cbcMACLen + aes.BlockSize }

func (p *cbcProtection) Seal(dst []byte, h Header, plaintext []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, cbcIVLen)...)
	iv := dst[start:]
	// An IV that the attacker can predict lets it test guesses of plaintext
	// (BEAST), so it is random for each record. rand.Read never fails.
	rand.Read(iv)
	body := len(dst)
	dst = append(dst, plaintext...)
	if !p.encryptThenMAC {
		dst = p.appendMAC(dst, h, len(plaintext), plaintext)
	}
	pad := aes.BlockSize - (len(dst)-body)%aes.BlockSize
	for range pad {
		dst = append(dst, byte(pad-1))
	}
	cipher.NewCBCEncrypter(p.block, iv).CryptBlocks(dst[body:], dst[body:])
	if p.encryptThenMAC {
		dst = p.appendMAC(dst, h, len(dst)-start, dst[start:])
	}
	return dst
}

// appendMAC appends the MAC over h, with n in its length field, and content.
func (p *cbcProtection) appendMAC(dst []byte, h Header, n int, content []byte) []byte {
	p.ad = h.append(p.ad[:0], n)
	p.mac.Reset()
	p.mac.Write(p.ad)
	p.mac.Write(content)
	return p.mac.Sum(dst)
}

func (p *cbcProtection) Open(h Header, fragment []byte) ([]byte, error) {
	if p.encryptThenMAC {
		n := len(fragment) - cbcMACLen
		// RFC 7366 section 3: the MAC is checked before anything is decrypted,
		// so what follows can't be an oracle.
		if n < 0 {
			return nil, ErrOpen
		}
		sum := p.appendMAC(p.sum[:0], h, n, fragment[:n])
		if Equal(sum, fragment[n:]) != 1 {
			return nil, ErrOpen
		}
		fragment = fragment[:n]
	}
	minimum := aes.BlockSize
	if !p.encryptThenMAC {
		// The MAC and one octet of padding, in whole blocks. What is shorter
		// is refused by its length, which the attacker knows.
		minimum = (cbcMACLen + 1 + aes.BlockSize - 1) / aes.BlockSize * aes.BlockSize
	}
	if len(fragment) < cbcIVLen+minimum || len(fragment)%aes.BlockSize != 0 {
		return nil, ErrOpen
	}
	iv, body := fragment[:cbcIVLen], fragment[cbcIVLen:]
	cipher.NewCBCDecrypter(p.block, iv).CryptBlocks(body, body)

	if !p.encryptThenMAC {
		return p.openMACThenEncrypt(h, body)
	}
	padLen, good := padding(body, 0)
	if good != 1 {
		return nil, ErrOpen // the peer authenticated nonsense
	}
	return body[:len(body)-padLen], nil
}

// openMACThenEncrypt checks the MAC of a decrypted record without its time or
// its memory accesses depending on how much padding there was or whether it
// was right. Doing it the plain way is Lucky Thirteen: hashing takes one
// compression more or fewer as the padding varies, and an attacker who injects
// altered records measures that, octet by octet.
func (p *cbcProtection) openMACThenEncrypt(h Header, body []byte) ([]byte, error) {
	// With bad padding padLen is 0, and we go on as if there were none, as
	// RFC 5246 section 6.2.3.2 asks.
	padLen, good := padding(body, cbcMACLen)
	n := len(body) - cbcMACLen - padLen
	p.ad = h.append(p.ad[:0], n)
	p.ctMAC.sum(&p.sum, p.ad, body, n)
	var received [cbcMACLen]byte
	copyMAC(&received, body, n)
	good &= Equal(received[:], p.sum[:])
	if good != 1 {
		return nil, ErrOpen
	}
	return body[:n], nil
}
