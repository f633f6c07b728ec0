package stack

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// keyedHash determines the shard of a source. It is SipHash-2-4 (J.-P. Aumasson and D. J.
// Bernstein, 2012): a sender who does not know the key cannot choose addresses that all fall
// into one shard.
type keyedHash struct{ k0, k1 uint64 }

// newKeyedHash returns a hash with the given key, or with a random one if key is nil.
func newKeyedHash(key *[16]byte) keyedHash {
	if key == nil {
		return keyedHash{rand.Uint64(), rand.Uint64()}
	}
	return keyedHash{binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])}
}

// index returns the shard of a source, out of n.
func (k keyedHash) index(from source, n int) int {
	return int(k.sum(uint64(from)) % uint64(n))
}

func (k keyedHash) sum(word uint64) uint64 {
	v := sipState{
		k.k0 ^ 0x736f6d6570736575,
		k.k1 ^ 0x646f72616e646f6d,
		k.k0 ^ 0x6c7967656e657261,
		k.k1 ^ 0x7465646279746573,
	}
	const length = 8 << 56 // bytes, in the last block
	for _, block := range [2]uint64{word, length} {
		v[3] ^= block
		v.rounds(2)
		v[0] ^= block
	}
	v[2] ^= 0xff
	v.rounds(4)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

type sipState [4]uint64

func (v *sipState) rounds(n int) {
	for range n {
		v[0] += v[1]
		v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
		v[0] = bits.RotateLeft64(v[0], 32)
		v[2] += v[3]
		v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
		v[0] += v[3]
		v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
		v[2] += v[1]
		v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
		v[2] = bits.RotateLeft64(v[2], 32)
	}
}
