package capture

import (
	"bufio"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Writer writes frames to a capture. [Writer.Flush] ends it.
type Writer struct {
	buffer *bufio.Writer
	pcap   *pcapgo.Writer   // one of the two
	ng     *pcapgo.NgWriter // is nil
}

// NewPcap begins a pcap, with times in nanoseconds or else in microseconds.
func NewPcap(w io.Writer, nanoseconds bool) (*Writer, error) {
	buffer := bufio.NewWriterSize(w, bufferSize)
	n := &Writer{buffer: buffer, pcap: pcapgo.NewWriter(buffer)}
	if nanoseconds {
		n.pcap = pcapgo.NewWriterNanos(buffer)
	}
	return n, n.pcap.WriteFileHeader(maxFrame, layers.LinkTypeEthernet)
}

// NewPcapng begins a pcapng by an application, with Ethernet interfaces of
// these names, of which there must be one, and times in nanoseconds.
func NewPcapng(w io.Writer, application string, interfaces ...string) (*Writer, error) {
	n := &Writer{buffer: bufio.NewWriterSize(w, bufferSize)}
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: application}}
	var err error
	for i, name := range interfaces {
		described := pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet, SnapLength: maxFrame}
		if i == 0 {
			n.ng, err = pcapgo.NewNgWriterInterface(n.buffer, described, options)
		} else {
			_, err = n.ng.AddInterface(described)
		}
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Write writes a frame, in a pcapng with comments.
func (w *Writer) Write(f Frame, comments ...string) error {
	info := gopacket.CaptureInfo{
		Timestamp:      f.Time,
		CaptureLength:  len(f.Data),
		Length:         f.Length,
		InterfaceIndex: f.Interface,
	}
	var err error
	if w.pcap != nil {
		err = w.pcap.WritePacket(info, f.Data)
	} else {
		err = w.ng.WritePacketWithOptions(info, f.Data, pcapgo.NgPacketOptions{Comments: comments})
	}
	if err == nil {
		return nil
	}
	if first := w.buffer.Flush(); first != nil {
		return first // what made pcapgo fail, in plain words
	}
	return err
}

// Flush writes what is still buffered.
func (w *Writer) Flush() error {
	if w.ng != nil { // the buffer of which is ours
		if err := w.ng.Flush(); err != nil {
			return err
		}
	}
	return w.buffer.Flush()
}
