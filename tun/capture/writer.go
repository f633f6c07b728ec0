package capture

import (
	"bufio"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Writer writes frames to a capture. Call [Writer.Flush] at the end.
type Writer struct {
	buffer *bufio.Writer
	pcap   *pcapgo.Writer // one of the two is nil
	ng     *pcapgo.NgWriter
}

// NewPcap begins a pcap, with times in nanoseconds or in microseconds.
func NewPcap(w io.Writer, nanoseconds bool) (*Writer, error) {
	buffer := bufio.NewWriterSize(w, bufferSize)
	n := &Writer{buffer: buffer, pcap: pcapgo.NewWriter(buffer)}
	if nanoseconds {
		n.pcap = pcapgo.NewWriterNanos(buffer)
	}
	return n, n.pcap.WriteFileHeader(maxFrame, layers.LinkTypeEthernet)
}

// NewPcapng begins a pcapng of an application, with at least one Ethernet interface,
// given by name, and times in nanoseconds.
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

// Write writes a frame. In a pcapng it can have comments.
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
		return first // the cause of pcapgo's error
	}
	return err
}

// Flush writes what is still buffered.
func (w *Writer) Flush() error {
	if w.ng != nil { // its buffer belongs to this package
		if err := w.ng.Flush(); err != nil {
			return err
		}
	}
	return w.buffer.Flush()
}
