"""The whole chain, and the page that shows what came of it."""
