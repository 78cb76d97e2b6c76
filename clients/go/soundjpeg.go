package tipserve

import "encoding/binary"

// image/jpeg decodes what libjpeg-turbo warns of: Huffman tables that are none,
// bytes between segments, data that goes on after its last block. The server
// refuses all of it. So a file is decoded here only if every bit of it is where
// it should be; that is seen without computing a pixel. Of progressive files it
// is not seen so easily, and they are left to the server.

// JPEG's markers. SOF0 and SOF1 are sequential and Huffman-coded.
const (
	markerSOF1, markerDHT, markerRST0           = 0xc1, 0xc4, 0xd0
	markerDRI, markerAPP0, markerCOM, markerDQT = 0xdd, 0xe0, 0xfe, 0xdb
)

// soundJPEG tells whether a file is a sequential JPEG of eight bits in which
// nothing is missing, superfluous or damaged.
func soundJPEG(file []byte) bool {
	if len(file) < 4 || file[0] != 0xff || file[1] != markerSOI {
		return false
	}
	check := jpegCheck{file: file, at: 2}
	for {
		marker, ok := check.marker()
		if !ok {
			return false
		}
		if marker == markerEOI {
			return check.whole()
		}
		segment, ok := check.segment()
		if !ok {
			return false
		}
		switch {
		case marker == markerSOF0, marker == markerSOF1:
			ok = check.frame(segment)
		case marker == markerDHT:
			ok = check.huffmanTables(segment)
		case marker == markerDRI:
			ok = len(segment) == 2
			if ok {
				check.restart = int(binary.BigEndian.Uint16(segment))
			}
		case marker == markerSOS:
			ok = check.scan(segment)
		case marker == markerDQT, marker == markerCOM:
		case markerAPP0 <= marker && marker <= markerAPP0+15:
		default:
			ok = false // progressive, arithmetic, lossless, unknown
		}
		if !ok {
			return false
		}
	}
}

type jpegCheck struct {
	file          []byte
	at            int
	width, height int
	components    []jpegComponent
	hMax, vMax    int
	dc, ac        [4]*huffman
	restart       int
}

type jpegComponent struct {
	id      byte
	h, v    int
	scanned bool
}

// marker is the next one; there is nothing before it but fill bytes.
func (c *jpegCheck) marker() (byte, bool) {
	start := c.at
	for c.at < len(c.file) && c.file[c.at] == 0xff {
		c.at++
	}
	if c.at == start || c.at == len(c.file) || c.file[c.at] == 0 {
		return 0, false
	}
	c.at++
	return c.file[c.at-1], true
}

// segment is what follows a marker, without its length.
func (c *jpegCheck) segment() ([]byte, bool) {
	if c.at+2 > len(c.file) {
		return nil, false
	}
	length := int(binary.BigEndian.Uint16(c.file[c.at:]))
	if length < 2 || c.at+length > len(c.file) {
		return nil, false
	}
	segment := c.file[c.at+2 : c.at+length]
	c.at += length
	return segment, true
}

func (c *jpegCheck) frame(segment []byte) bool {
	if c.components != nil || len(segment) < 6 || segment[0] != 8 {
		return false
	}
	c.height, c.width = int(binary.BigEndian.Uint16(segment[1:])), int(binary.BigEndian.Uint16(segment[3:]))
	count := int(segment[5])
	if c.height == 0 || c.width == 0 || count < 1 || count > 4 || len(segment) != 6+3*count {
		return false
	}
	for i := range count {
		own := segment[6+3*i:]
		one := jpegComponent{id: own[0], h: int(own[1] >> 4), v: int(own[1] & 15)}
		if one.h < 1 || one.h > 4 || one.v < 1 || one.v > 4 {
			return false
		}
		c.hMax, c.vMax = max(c.hMax, one.h), max(c.vMax, one.v)
		c.components = append(c.components, one)
	}
	return true
}

// whole tells whether every component had its scan.
func (c *jpegCheck) whole() bool {
	for _, one := range c.components {
		if !one.scanned {
			return false
		}
	}
	return c.components != nil
}

func (c *jpegCheck) huffmanTables(segment []byte) bool {
	for len(segment) > 0 {
		if len(segment) < 17 || segment[0]>>4 > 1 || segment[0]&15 > 3 {
			return false
		}
		count := 0
		for _, n := range segment[1:17] {
			count += int(n)
		}
		if count > 256 || len(segment) < 17+count {
			return false
		}
		table := newHuffman(segment[1:17], segment[17:17+count])
		if segment[0]>>4 == 0 {
			c.dc[segment[0]&15] = table
		} else {
			c.ac[segment[0]&15] = table
		}
		segment = segment[17+count:]
	}
	return true
}

// scanned is a component in a scan.
type scanned struct {
	component *jpegComponent
	dc, ac    *huffman
}

// scan reads one to its last bit.
func (c *jpegCheck) scan(segment []byte) bool {
	if c.components == nil || len(segment) < 1 {
		return false
	}
	count := int(segment[0])
	if count < 1 || count > len(c.components) || len(segment) != 4+2*count {
		return false
	}
	// All coefficients, all their bits.
	if rest := segment[1+2*count:]; rest[0] != 0 || rest[1] != 63 || rest[2] != 0 {
		return false
	}
	parts := make([]scanned, count)
	for i := range parts {
		id, tables := segment[1+2*i], segment[2+2*i]
		if tables>>4 > 3 || tables&15 > 3 {
			return false
		}
		part := scanned{dc: c.dc[tables>>4], ac: c.ac[tables&15]}
		for j := range c.components {
			if one := &c.components[j]; one.id == id && !one.scanned {
				part.component = one
				break
			}
		}
		if part.component == nil || !part.dc.isOf(15) || !part.ac.isOf(255) {
			return false
		}
		part.component.scanned = true
		parts[i] = part
	}
	return c.blocks(parts)
}

// blocks reads the units of a scan: of one component its blocks, of several
// what covers the same square.
func (c *jpegCheck) blocks(parts []scanned) bool {
	units := ceil(c.width, 8*c.hMax) * ceil(c.height, 8*c.vMax)
	each := func(p scanned) int { return p.component.h * p.component.v }
	if len(parts) == 1 {
		one := parts[0].component
		units = ceil(ceil(c.width*one.h, c.hMax), 8) * ceil(ceil(c.height*one.v, c.vMax), 8)
		each = func(scanned) int { return 1 }
	}
	bits := bitReader{check: c}
	for unit := range units {
		if c.restart > 0 && unit > 0 && unit%c.restart == 0 {
			if !bits.restart(byte(unit/c.restart-1) % 8) {
				return false
			}
		}
		for _, part := range parts {
			for range each(part) {
				if !bits.block(part.dc, part.ac) {
					return false
				}
			}
		}
	}
	return true
}

func ceil(a, b int) int { return (a + b - 1) / b }

// huffman is a table, by the lengths of its codes.
type huffman struct {
	// first code of a length, where its symbols begin, and how many there are.
	first, begin, count [17]int
	symbols             []byte
	sound               bool
}

func newHuffman(counts, symbols []byte) *huffman {
	made := &huffman{symbols: symbols, sound: true}
	code, at := 0, 0
	for length := 1; length <= 16; length++ {
		n := int(counts[length-1])
		made.first[length], made.begin[length], made.count[length] = code, at, n
		code, at = code+n, at+n
		// No code is all ones.
		if n > 0 && code >= 1<<length {
			made.sound = false
		}
		code <<= 1
	}
	return made
}

// isOf tells whether there is a table, its symbols being at most this.
func (h *huffman) isOf(most byte) bool {
	if h == nil || !h.sound {
		return false
	}
	for _, symbol := range h.symbols {
		if symbol > most {
			return false
		}
	}
	return true
}

// bitReader reads a scan's data.
type bitReader struct {
	check *jpegCheck
	hold  uint32
	left  int
}

// fill makes sure that there are n bits, at most 16; there may be none, before a marker.
func (b *bitReader) fill(n int) bool {
	file := b.check.file
	for b.left < n {
		at := b.check.at
		if at+1 >= len(file) {
			return false
		}
		if file[at] == 0xff {
			if file[at+1] != 0 {
				return false
			}
			b.check.at++
		}
		b.check.at++
		b.hold = b.hold<<8 | uint32(file[at])
		b.left += 8
	}
	return true
}

func (b *bitReader) skip(n int) bool {
	if !b.fill(n) {
		return false
	}
	b.left -= n
	return true
}

func (b *bitReader) symbol(table *huffman) (byte, bool) {
	code := 0
	for length := 1; length <= 16; length++ {
		if !b.fill(1) {
			return 0, false
		}
		b.left--
		code = code<<1 | int(b.hold>>b.left&1)
		if at := code - table.first[length]; at >= 0 && at < table.count[length] {
			return table.symbols[table.begin[length]+at], true
		}
	}
	return 0, false
}

// block reads the coefficients of eight by eight pixels.
func (b *bitReader) block(dc, ac *huffman) bool {
	size, ok := b.symbol(dc)
	if !ok || !b.skip(int(size)) {
		return false
	}
	for k := 1; k < 64; k++ {
		symbol, ok := b.symbol(ac)
		if !ok {
			return false
		}
		run, size := int(symbol>>4), int(symbol&15)
		if size == 0 {
			if run != 15 {
				break
			}
			k += 15
			continue
		}
		k += run
		if !b.skip(size) {
			return false
		}
	}
	return true
}

// restart reads the marker of this number, which follows the last bits.
func (b *bitReader) restart(number byte) bool {
	b.hold, b.left = 0, 0
	marker, ok := b.check.marker()
	return ok && marker == markerRST0+number
}
