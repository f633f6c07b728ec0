// Package ufo finds, among frames to be written, fragments that the kernel can make itself: UDP
// fragmentation offload. If a UDP datagram over IPv4 is written to a TAP in one piece, with the
// virtio-net type [tun.GSOFragments], the kernel fragments it on egress
// (net/ipv4/udp_offload.c, udp4_ufo_fragment; net/ipv4/af_inet.c, inet_gso_segment). One write
// then replaces one per fragment.
//
//	fragments ──► Find ──► Datagram ──► Header, Payload... ──► one frame
//
// Find takes fragments only if the kernel makes the same ones, byte for byte. It reads the
// frames and keeps no copy.
//
// The package imports tun and packet/checksum.
package ufo
