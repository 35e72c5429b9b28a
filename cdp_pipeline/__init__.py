"""An open, composable Customer Data Platform: declared in YAML, computed in the company's own lake, run by Dagster."""
