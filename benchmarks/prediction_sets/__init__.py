"""What predictions are measured on, one module per area: `rows(data)` yields rows of the table predictions.py writes.

Every module takes the product's own path (training set, train, score) over a timeline made from the data set; rivals
are written out in it, and learn from the same days.
"""
