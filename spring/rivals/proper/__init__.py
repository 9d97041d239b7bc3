"""PROPER (ACL 2025, arXiv 2503.01303), -style: levels, banks of experts, and their files."""
