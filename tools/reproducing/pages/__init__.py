"""Tables, figures, claims and conditions as Markdown, JSON and PNG."""
