"""The compression pipeline: stages that prune, quantise, fine-tune and code a network, in any order."""
