"""The fault campaigns, by what is at fault; `tests/campaign.py` runs them."""
