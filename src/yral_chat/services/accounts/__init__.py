"""What people may take along and have erased (contract section 14)."""
