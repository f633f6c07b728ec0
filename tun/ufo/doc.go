// Package ufo finds, among frames to be written, fragments that the kernel can make itself: UDP
// fragmentation offload. If a UDP datagram over IPv4 is written to a TAP in one piece, with the
// virtio-net type [tun.GSOFragments], the kernel fragments it on egress
// (net/ipv4/udp_offload.c, udp4_ufo_fragment; net/ipv4/af_inet.c, inet_gso_segment). One write
// then replaces one per fragment.
//
//	fragments ──► Find ──► Datagram ──► Header, Payload... ──► one frame
//
// [Find] accepts fragments only if the kernel would make the same ones, byte for byte. A
// [Datagram] refers to the frames and copies no payload.
//
// The package imports tun and packet/checksum.
package ufo
