/* is_partial reports whether a checksum is left for a NIC (CHECKSUM_PARTIAL), which a
 * program can't read. It is what is neither CHECKSUM_COMPLETE, which alone can be
 * updated, nor CHECKSUM_NONE, which alone BPF_CSUM_LEVEL_INC changes to
 * CHECKSUM_UNNECESSARY, which it is known not to be. */
static __always_inline int is_partial(struct __sk_buff *skb)
{
	if (bpf_csum_update(skb, 0) >= 0)
		return 0;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_INC);
	if (bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) < 0)
		return 1;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return 0;
}
