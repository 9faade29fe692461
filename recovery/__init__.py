"""What is wrong with a run and what to do; the door is emergency_recovery.py: the policy (`ladder.py`), the rule
book (`advice.py`), why a run ended (`diagnosis.py`), repair.
"""
