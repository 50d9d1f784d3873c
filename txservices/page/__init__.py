"""A page in a browser that shows the fleet live, and from which methods are called and parked messages seen to.

access, watch, picture, depths <- server <- cluster
"""
