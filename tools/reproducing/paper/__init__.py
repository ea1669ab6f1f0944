"""Tables and figures of the SRN paper: their parts, printed numbers and claims."""
