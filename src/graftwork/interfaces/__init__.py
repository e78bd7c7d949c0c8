"""The seams: one page each, no implementation. Read these first.

=====================  =====================================================================
``Backbone``           inputs in, shared features out
``BlockBackbone``      a backbone whose blocks can be walked through and tapped
``SharedModel``        encoder, sharing operator, heads
``ControllableModel``  a shared model whose size and preference for tasks can be set after training
``Balancer``           per-task losses in, gradients out
``Objective``          an extra loss
``GradientTransform``  changes gradients before the optimiser reads them
``TrainStep``          what one step of a training computes, and where its batches come from
``Generator``          draws samples, given a condition or nothing
``Tuner``              which parts learn, what is added to a backbone
``Delta``              anything that tuning adds to a base
``Merger``             several tuned models become one, tensor by tensor
``Scorer``             how promising is a source, judged without training
``SetScorer``          the same of sets of sources; ``SetSelector`` picks a set
``Binding``            what objectives, balancers and transforms are handed before the first step
``Learner``            anything that can enter the race of ``graftwork fit``
``TaskKind``           all that depends on what a task predicts: layout, loss, answers, words
``Metric``             target and prediction in, a value under any weighting of the rows out
=====================  =====================================================================
"""
