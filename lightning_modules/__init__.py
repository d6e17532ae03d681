"""LightningModules, and below them the autoencoders, metrics and arithmetic. Import a class from its module: this
package imports nothing, so that arithmetic does not pay for Lightning.
"""
