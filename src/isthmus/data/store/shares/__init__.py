"""A table encoded by several processes, each of which reads its share: the same bits as of one."""
