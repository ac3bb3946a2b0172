"""Statistics that every measure shares: intervals, areas under curves, ranks, draws of documents.

`clusters` has intervals over documents, or other clusters, from leaving each out. `draws` has intervals from documents
drawn with replacement. `intervals` has those of rates, means and differences, `auc` areas under the ROC curve, `ranks`
correlations of ranks.

One rule holds over clusters. There is no interval (None, or NaN in columns) with fewer than `LEAST_CLUSTERS` of them,
and none where the value, or the value without one of them, is not finite; of draws, a twentieth may have no value.
Nothing is replaced by 0, and nothing is left out in silence.
"""
