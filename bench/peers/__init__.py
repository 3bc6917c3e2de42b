"""The peers' own little programs, each as its documentation recommends. They know nothing of Sluice."""
