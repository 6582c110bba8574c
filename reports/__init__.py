"""Numbers rendered: tables, figures, pages. Computes no statistic."""
