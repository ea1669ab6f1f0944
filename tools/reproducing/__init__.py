"""The tables and figures of the SRN paper's GAN experiments: what they print, what they need, how ours are written."""
