package handover

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// message is a message of the routing family (rtnetlink(7)): a fixed header,
// and attributes.
type message struct {
	kind       uint16 // the RTM_NEW... type that adds the described object
	header     []byte
	attributes []attribute
}

// attribute is an attribute of a message, or nested in another one.
type attribute struct {
	kind  uint16
	value []byte
}

// nlaTypeMask removes the flags from an attribute's kind (NLA_TYPE_MASK).
const nlaTypeMask = 0x3fff

// headerSizes are the header sizes of the messages that are moved, in bytes.
var headerSizes = map[uint16]int{
	unix.RTM_NEWLINK:  unix.SizeofIfInfomsg,
	unix.RTM_NEWADDR:  unix.SizeofIfAddrmsg,
	unix.RTM_NEWROUTE: unix.SizeofRtMsg,
	unix.RTM_NEWNEIGH: unix.SizeofNdMsg,
}

var errMessage = errors.New("malformed netlink message")

// parseMessage reads the bytes after the netlink header. The message shares no memory
// with them.
func parseMessage(kind uint16, body []byte) (message, error) {
	size, known := headerSizes[kind]
	if !known || len(body) < size {
		return message{}, errMessage
	}
	body = bytes.Clone(body)
	attributes, err := parseAttributes(body[size:])
	return message{kind, body[:size:size], attributes}, err
}

func parseAttributes(b []byte) (list []attribute, err error) {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return nil, errMessage
		}
		list = append(list, attribute{binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:length:length]})
		b = b[min(align(length), len(b)):]
	}
	return list, nil
}

// align rounds up to RTA_ALIGNTO.
func align(n int) int { return (n + 3) &^ 3 }

// body returns the bytes after the netlink header.
func (m message) body() []byte {
	return appendAttributes(bytes.Clone(m.header), m.attributes)
}

func appendAttributes(b []byte, list []attribute) []byte {
	for _, a := range list {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(a.value)))
		b = binary.NativeEndian.AppendUint16(b, a.kind)
		b = append(b, a.value...)
		b = append(b, make([]byte, align(len(a.value))-len(a.value))...)
	}
	return b
}

// get returns an attribute's value, or nil if there is none.
func (m message) get(kind uint16) []byte { return find(m.attributes, kind) }

func find(list []attribute, kind uint16) []byte {
	for _, a := range list {
		if a.kind&nlaTypeMask == kind {
			return a.value
		}
	}
	return nil
}

// number returns an attribute of 32 bits, or 0 if there is none.
func (m message) number(kind uint16) uint32 {
	if v := m.get(kind); len(v) >= 4 {
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

// family returns AF_INET or AF_INET6: every header begins with it.
func (m message) family() uint8 { return m.header[0] }

// clone returns an independent copy of the message.
func (m message) clone() message {
	c := message{m.kind, bytes.Clone(m.header), slices.Clone(m.attributes)}
	for i := range c.attributes {
		c.attributes[i].value = bytes.Clone(c.attributes[i].value)
	}
	return c
}

// set changes an attribute, or adds it.
func (m *message) set(kind uint16, value []byte) {
	m.remove(kind)
	m.attributes = append(m.attributes, attribute{kind, value})
}

func (m *message) setNumber(kind uint16, v uint32) {
	m.set(kind, binary.NativeEndian.AppendUint32(nil, v))
}

func (m *message) remove(kinds ...uint16) {
	m.attributes = slices.DeleteFunc(m.attributes, func(a attribute) bool {
		return slices.Contains(kinds, a.kind&nlaTypeMask)
	})
}

// key identifies a message, whatever the order of its attributes.
func (m message) key() string {
	sorted := slices.SortedFunc(slices.Values(m.attributes), func(a, b attribute) int { return int(a.kind) - int(b.kind) })
	return string(appendAttributes(bytes.Clone(m.header), sorted))
}

// MarshalText writes the kind and the body, in this machine's byte order, as base64.
func (m message) MarshalText() ([]byte, error) {
	b := append(binary.NativeEndian.AppendUint16(nil, m.kind), m.body()...)
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *message) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if len(b) < 2 {
		return errMessage
	}
	*m, err = parseMessage(binary.NativeEndian.Uint16(b), b[2:])
	return err
}
