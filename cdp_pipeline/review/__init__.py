"""What a change of YAML does to people, told so that it can be reviewed before it is made."""
