"""Hide-and-Seek Attribution for vertebral metastases in CT (Atad et al., MIDL 2026)."""

__version__ = "0.1.0"
